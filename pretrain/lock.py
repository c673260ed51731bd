"""One run at a time in a folder: a second one, as of a job that was queued twice, is refused."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from mocobench.runtime.distributed import gather_objects, is_main
from mocobench.runtime.errors import UserError

LOCK = ".lock"


@contextmanager
def sole_run(out: Path) -> Iterator[None]:
    """Be the only run in `out` for the body; rank 0 holds the lock for all.

    The system takes it from a process that ends, however it ends. Where there are no locks, or nothing can be written,
    the body runs without one.

    Raises:
        UserError: there is another run; raised on every process.
    """
    with _lock(out) if is_main() else nullcontext(True) as is_ours:
        if not all(gather_objects(is_ours)):
            raise UserError(
                f"--out {out}: expected a folder in which no run is at work, found one that is; wait for its end, or "
                "choose another --out"
            )
        yield


@contextmanager
def _lock(out: Path) -> Iterator[bool]:
    """Whether no other process holds the lock; nothing of it is left, nor of a folder that was only made for it."""
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    file, is_free = None, True
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = _take(out / LOCK)
    except BlockingIOError:
        is_free = False
    except OSError:
        pass
    try:
        yield is_free
    finally:
        if file is not None:
            (out / LOCK).unlink(missing_ok=True)
            os.close(file)
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


def _take(path: Path) -> int:
    """The file at `path`, open and locked.

    Raises:
        BlockingIOError: another process has it.
        OSError: the file cannot be made, or there are no locks on its file system.
    """
    while True:
        file = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            # Not flock(), which the workers that load images would inherit: they can outlive a run that was killed.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(file)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise BlockingIOError(*error.args) from error
            path.unlink(missing_ok=True)
            raise
        # A run that ended in between has removed the file: what is locked then is not what others would find.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), path.stat()):
                return file
        os.close(file)
