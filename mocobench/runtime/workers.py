"""Workers that load for a process: what they pass on in shared memory, and what it means that one is gone."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mocobench.runtime.errors import UserError

if TYPE_CHECKING:
    import torch

SHARED_MEMORY = Path("/dev/shm")
MORE_SHARED_MEMORY = "give it more (in Docker with --shm-size), or use --workers 0"


def share(tensor: "torch.Tensor") -> "torch.Tensor":
    """In a worker, move the tensor to the memory that it shares with its process; elsewhere leave it as it is.

    For every tensor that a worker returns. PyTorch would move it later, in a thread of the worker's queue, where one
    for which there is no room is dropped, and the process waits for it for ever.

    Raises:
        UserError: there is no room; to be returned, as a raised one would come back buried in the worker's traceback.
    """
    from torch.utils.data import get_worker_info

    if get_worker_info() is None:
        return tensor
    try:
        return tensor.share_memory_()
    except RuntimeError as error:
        reason = str(error).split(": ")[-1]
        raise UserError(
            f"{SHARED_MEMORY}: expected room for the {tensor.nbytes / 2**20:.1f} MiB that a loading worker passes on, "
            f"found {_room()} ({reason}); {MORE_SHARED_MEMORY}"
        ) from error


def _room() -> str:
    if not SHARED_MEMORY.is_dir():
        return "no such folder"
    usage = shutil.disk_usage(SHARED_MEMORY)
    return f"{usage.free / 2**20:.1f} of {usage.total / 2**20:.1f} MiB free"


@contextmanager
def lost_workers_are_named() -> Iterator[None]:
    """Turn what PyTorch raises in the body, at any place in it, when a loading worker has died into what to do.

    Raises:
        UserError: a worker has died.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise UserError(
            f"--workers: expected the loading workers to stay until the end, found {str(error).splitlines()[0].strip()}"
            "; if memory ran out, use fewer --workers or give the machine or container more of it"
        ) from error
