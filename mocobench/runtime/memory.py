"""Running out of memory, as an error that the user can mend."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mocobench.runtime.errors import UserError


@contextmanager
def out_of_memory_means(what: str, *, remedy: str) -> Iterator[None]:
    """Turn an out-of-memory error of the body, on any device, into one that says what to do.

    Raises:
        UserError: `what` (such as "a training step on 16 images") took more memory than there is.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"{what}: expected enough memory, found {_first_line(error)}; {remedy}") from error


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed. PyTorch's CPU allocator has no type of its own for that, only its message."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "you tried to allocate" in str(error)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["none left"])[0].rstrip(".")
