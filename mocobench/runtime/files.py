"""Files that are either whole or absent: written under a temporary name, flushed, then renamed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mocobench.runtime.errors import UserError


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


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 so that `path` is either the old file or the whole new one."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
