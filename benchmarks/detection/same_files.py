"""Finding files with the same content among many, reading as little of them as it takes."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from mocobench.runtime.errors import UserError
from mocobench.runtime.progress import progress

TAIL_BYTES = 4096


def same_files(paths: Sequence[Path]) -> list[list[int]]:
    """Indices of the paths whose files have the same SHA-256, in groups of two or more, each in rising order.

    Only files of one size can be equal, and of those only files that end alike, so few are read whole: pictures of
    one size by the thousand still differ in their last bytes, since compressed.

    Raises:
        UserError: a file is missing or cannot be read.
    """
    groups: list[list[int]] = [list(range(len(paths)))]
    for content_key, label in (
        (_num_bytes, "comparing sizes"),
        (_tail, "comparing ends"),
        (_sha256, "comparing files"),
    ):
        indices = progress([index for group in groups for index in group], label=label, unit="image")
        keys = {index: content_key(paths[index]) for index in indices}
        groups = [part for group in groups for part in _split(group, keys.__getitem__) if len(part) > 1]
    return groups


def _split(group: Iterable[int], key: Callable[[int], Any]) -> list[list[int]]:
    parts: dict[Any, list[int]] = defaultdict(list)
    for index in group:
        parts[key(index)].append(index)
    return list(parts.values())


def _num_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise UserError(f"{path}: expected an image, found {error.strerror}") from error


def _tail(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            return file.read()
    except OSError as error:
        raise UserError(f"{path}: expected an image, found {error.strerror}") from error


def _sha256(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError as error:
        raise UserError(f"{path}: expected an image, found {error.strerror}") from error
