"""Workers that load for a process: how they end, what they pass on, and what it means that one is gone."""

import ctypes
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from mocobench.runtime.errors import UserError

if TYPE_CHECKING:
    import torch

SHARED_MEMORY = Path("/dev/shm")
MORE_SHARED_MEMORY = "give it more (in Docker with --shm-size), or use --workers 0"


def end_with_the_parent(worker: int) -> None:
    """Let this worker end with its process, not before, and in silence: the `worker_init_fn` of every loader.

    The system kills it when its process dies (Linux; elsewhere PyTorch's own watch ends it later): a worker has
    inherited the sockets between the ranks. Left over from a rank that was killed, it holds them open, and a group that
    torchrun starts again waits on them. When a scheduler asks a whole job to end, it leaves the answer to its process,
    which would take a worker that ends first for a failure.
    """
    del worker
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.excepthook = _say_unless_the_parent_has_gone
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def _say_unless_the_parent_has_gone(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """A process that is interrupted while a tensor is handed over hangs up on its worker's thread."""
    if not issubclass(kind, EOFError | ConnectionError):
        sys.__excepthook__(kind, error, traceback)


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
