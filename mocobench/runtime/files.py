"""Files that are whole or absent, written under a temporary name and renamed; those that grow; names to print."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mocobench.runtime.errors import UserError


def printable(name: str | Path) -> str:
    """A file's name for messages and records: bytes of it that are not UTF-8 as `\\xe9`, all others as they are."""
    return os.fsencode(name).decode(errors="backslashreplace")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and rename it to `path`.

    When the body raises, the temporary file is removed and whatever stood at `path` before is untouched.

    Raises:
        UserError: the folder cannot be written or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # where the folder could not be made there is nothing to remove
            temporary.unlink()


def save_tensors(content: Any, path: Path) -> None:
    """torch.save to a file that is flushed to disk: equal bytes for equal content, whatever the name of the file.

    Raises:
        OSError: the system's reason; PyTorch's writer only reports that its file was cut short.
    """
    import torch

    with path.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
        file.flush()
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 so that `path` is either the old file or the whole new one."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def writes_to(place: Path | str) -> Iterator[None]:
    """Name the file or what else the body writes to, where the system refuses: to a full disk's error it is unknown.

    Raises:
        UserError: the system's reason, with `place`.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {place}: {error.strerror or error}; make room, then start the same command again"
        ) from error


def append_text(path: Path, text: str) -> None:
    """Append `text` as UTF-8 and flush it to disk. What a kill or a full disk leaves of it is for the reader to drop.

    Raises:
        UserError: it cannot be written.
    """
    with writes_to(path), path.open("a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def require_writable(folder: Path, *, flag: str) -> None:
    """Prove before long work that its outcome can be written: in the folder, or where it would be made. Leaves nothing.

    Raises:
        UserError: no file can be made there; `flag` is what named the folder.
    """
    place = folder.absolute()
    while not (place.exists() or place.is_symlink()):
        place = place.parent
    if not place.is_dir():
        raise UserError(f"{flag} {folder}: expected a folder, or a place for one, found {place}, which is none")
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise UserError(f"{flag} {folder}: expected a folder that can be written, found {error.strerror}") from error
