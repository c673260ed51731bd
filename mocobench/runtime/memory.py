"""Memory of a process: what it frees is kept, and running out of it is an error that the user can mend."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mocobench.runtime.errors import UserError

# Parameters of glibc's mallopt(3).
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """From now on keep memory that is freed for what is allocated next, in this process and those forked from it.

    By default glibc hands each large tensor back to the system, which gives zeroed pages for the next one, a fault a
    page: at every step of a training on a CPU again. What is kept leaves holes, so the peak grows by about a tenth.
    Other C libraries are left as they are.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_MMAP_MAX, 0)  # large blocks from the heap too
        set_option(_TRIM_THRESHOLD, -1)  # which never shrinks


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
    """Whether an allocation failed. Only PyTorch's own allocator of CUDA memory has a type for that.

    Its CPU allocator, the CUDA driver and runtime, NCCL and cuBLAS have their messages.
    """
    said = ("you tried to allocate", "out of memory", "_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in said)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["none left"])[0].rstrip(".")
