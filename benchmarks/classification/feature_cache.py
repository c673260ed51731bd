"""Features kept in a file between runs, known by everything they depend on, and never trusted unread.

A file is named by the hash of its key and is a safetensors file with one tensor, `features` (N, C), whose header holds
the key and the SHA-256 of the values. It appears under its name when it is whole, so processes may share a folder: at
worst two compute the same.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from mocobench.runtime.files import atomic_file

VERSION = 2  # goes up when the same key would give other features
NAME = "features"
HASH_BLOCK = 2**24  # values


class FeatureFile:
    """Features (N, C) being written to an open file, part after part."""

    def __init__(self, file: BinaryIO, key: dict[str, Any], *, shape: tuple[int, int]) -> None:
        self._file, self._key, self._shape = file, key, shape
        self._sha, self._num_written = hashlib.sha256(), 0
        file.write(self._header("0" * 64))

    def _header(self, sha256: str) -> bytes:
        """The length, then JSON padded to whole words; as long for every hash."""
        bounds = [0, 4 * self._shape[0] * self._shape[1]]
        metadata = {"key": json.dumps(self._key, sort_keys=True), "sha256": sha256}
        content = {"__metadata__": metadata, NAME: {"dtype": "F32", "shape": self._shape, "data_offsets": bounds}}
        text = json.dumps(content).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    def append(self, features: torch.Tensor) -> None:
        """The next features (n, C), float32 on the CPU."""
        content = features.numpy().tobytes()
        self._file.write(content)
        self._sha.update(content)
        self._num_written += len(features)

    def close(self) -> None:
        """No more features; their hash goes into the header."""
        assert self._num_written == self._shape[0], (self._num_written, self._shape)
        self._file.seek(0)
        self._file.write(self._header(self._sha.hexdigest()))


def cache_path(folder: Path, key: dict[str, Any]) -> Path:
    """Where the features of a key lie."""
    text = json.dumps({"version": VERSION, **key}, sort_keys=True)
    return folder / f"features-{hashlib.sha256(text.encode()).hexdigest()[:16]}.safetensors"


@contextmanager
def write_features(path: Path, key: dict[str, Any], *, shape: tuple[int, int]) -> Iterator[FeatureFile]:
    """A file to append features to in the body; it appears at `path` when the body ends without an error.

    Raises:
        UserError: the folder cannot be written or the disk is full.
    """
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        features = FeatureFile(file, key, shape=shape)
        yield features
        features.close()


def read_features(path: Path, key: dict[str, Any], *, shape: tuple[int, int]) -> torch.Tensor | None:
    """The features (N, C) at `path` as a memory map, or None, with a line that says why, where they are not usable."""
    if not path.exists():
        return None
    try:
        values = _read_checked(path, key, shape)
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"{path}: not used, {error}; the features are computed again", flush=True)
        return None
    return torch.from_numpy(values)


def _read_checked(path: Path, key: dict[str, Any], shape: tuple[int, int]) -> np.ndarray:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError("it is damaged")
        content = json.loads(file.read(length))
    metadata, size = content["__metadata__"], 8 + length + 4 * shape[0] * shape[1]
    if json.loads(metadata["key"]) != json.loads(json.dumps(key)) or content[NAME]["shape"] != list(shape):
        raise ValueError("it holds other features than its name says")
    if path.stat().st_size != size:
        raise ValueError(f"it has {path.stat().st_size} bytes instead of {size}")
    # Copy on write: the map is private to this process and the file stays as it is.
    values = np.memmap(path, dtype=np.float32, mode="c", offset=8 + length, shape=shape)
    sha, flat = hashlib.sha256(), values.reshape(-1)
    for start in range(0, flat.size, HASH_BLOCK):
        sha.update(flat[start : start + HASH_BLOCK].tobytes())
    if sha.hexdigest() != metadata["sha256"]:
        raise ValueError("its values are not those that were written")
    return values
