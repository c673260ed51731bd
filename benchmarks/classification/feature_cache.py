"""Features kept in a file between runs, known by everything they depend on, and never trusted unread.

A file is named by the hash of its key and is a safetensors file of `features` (N, C) and `left_out` (M,), the positions
in the list of the images that could not be read. Its header holds the key and the SHA-256 of the values. It appears
under its name when it is whole, so processes may share a folder: at worst two compute the same. While it is written it
is locked: what a process left that was killed is told by that from what another one is writing.
"""

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from mocobench.runtime.files import atomic_file

VERSION = 3  # goes up when the same key would give other features, or another file
FEATURES, LEFT_OUT = "features", "left_out"
HASH_BLOCK = 2**24  # values
NAMES = {torch.float32: "F32", torch.float16: "F16"}  # as safetensors has them


@dataclass(frozen=True)
class KeptFeatures:
    """Features (N, C) and the positions of the images that have none."""

    features: torch.Tensor
    left_out: tuple[int, ...]


class FeatureFile:
    """Features (N, C) being written to an open file, part after part; of N + M images `left_out` are without."""

    def __init__(self, file: BinaryIO, key: dict[str, Any], *, shape: tuple[int, int], dtype: torch.dtype) -> None:
        self.left_out: tuple[int, ...] = ()
        self._file, self._key, self._dtype = file, key, dtype
        (self._num_images, self._size), self._num_written = shape, 0
        self._sha = hashlib.sha256()
        # No number of the final header is longer.
        self._reserved = len(self._header(self._num_images, self._num_images, "0" * 64))
        self._reserved += -self._reserved % 8
        file.write(bytes(8 + self._reserved))

    def _header(self, num_features: int, num_left_out: int, sha256: str) -> bytes:
        metadata = {"key": json.dumps(self._key, sort_keys=True), "sha256": sha256}
        middle = self._dtype.itemsize * num_features * self._size
        tensors = (
            (FEATURES, NAMES[self._dtype], [num_features, self._size], [0, middle]),
            (LEFT_OUT, "I64", [num_left_out], [middle, middle + 8 * num_left_out]),
        )
        content: dict[str, Any] = {"__metadata__": metadata}
        for name, dtype, shape, bounds in tensors:
            content[name] = {"dtype": dtype, "shape": shape, "data_offsets": bounds}
        return json.dumps(content).encode()

    def append(self, features: torch.Tensor) -> None:
        """The next features (n, C), on the CPU."""
        assert features.dtype == self._dtype, features.dtype
        self._write(features.numpy().tobytes())
        self._num_written += len(features)

    def _write(self, content: bytes) -> None:
        self._file.write(content)
        self._sha.update(content)

    def close(self) -> None:
        """No more features; `left_out` follows them, and the hash goes into the header."""
        assert self._num_written + len(self.left_out) == self._num_images, (self._num_written, self.left_out)
        self._write(np.array(self.left_out, dtype="<i8").tobytes())
        header = self._header(self._num_written, len(self.left_out), self._sha.hexdigest())
        self._file.seek(0)
        self._file.write(self._reserved.to_bytes(8, "little") + header.ljust(self._reserved))


def cache_path(folder: Path, key: dict[str, Any]) -> Path:
    """Where the features of a key lie."""
    text = json.dumps({"version": VERSION, **key}, sort_keys=True)
    return folder / f"features-{hashlib.sha256(text.encode()).hexdigest()[:16]}.safetensors"


@contextmanager
def write_features(
    path: Path, key: dict[str, Any], *, shape: tuple[int, int], dtype: torch.dtype
) -> Iterator[FeatureFile]:
    """A file to append features to in the body; it appears at `path` when the body ends without an error.

    `shape` is that of the features of all images; those in the file's `left_out` have none. What processes that were
    killed have written of the same features is removed.

    Raises:
        UserError: the folder cannot be written or the disk is full.
    """
    _remove_halves(path)
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        with suppress(OSError):  # of a file system that has no locks; then nothing is removed either
            fcntl.lockf(file, fcntl.LOCK_EX)
        features = FeatureFile(file, key, shape=shape, dtype=dtype)
        yield features
        features.close()


def _remove_halves(path: Path) -> None:
    for half_written in path.parent.glob(f".{path.name}.*.tmp"):
        with suppress(OSError), half_written.open("r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its writer lives
            half_written.unlink()


def read_features(
    path: Path, key: dict[str, Any], *, shape: tuple[int, int], dtype: torch.dtype
) -> KeptFeatures | None:
    """The features at `path` as a memory map, or None, with a line that says why, where they are not usable.

    `shape` and `dtype` are as in `write_features`.
    """
    if not path.exists():
        return None
    try:
        return _read_checked(path, key, shape, dtype)
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"{path}: not used, {error}; the features are computed again", flush=True)
        return None


def _read_checked(path: Path, key: dict[str, Any], shape: tuple[int, int], dtype: torch.dtype) -> KeptFeatures:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError("it is damaged")
        content = json.loads(file.read(length))
    metadata, (num_left_out,) = content["__metadata__"], content[LEFT_OUT]["shape"]
    expected = [shape[0] - num_left_out, shape[1]]
    is_asked_for = content[FEATURES]["shape"] == expected and content[FEATURES]["dtype"] == NAMES[dtype]
    if not is_asked_for or json.loads(metadata["key"]) != json.loads(json.dumps(key)):
        raise ValueError("it holds other features than its name says")
    bounds = 8 + length, 8 + length + dtype.itemsize * expected[0] * expected[1]
    if path.stat().st_size != bounds[1] + 8 * num_left_out:
        raise ValueError(f"it has {path.stat().st_size} bytes instead of {bounds[1] + 8 * num_left_out}")
    # Copy on write: the map is private to this process and the file stays as it is.
    kind = torch.empty(0, dtype=dtype).numpy().dtype
    values = np.memmap(path, dtype=kind, mode="c", offset=bounds[0], shape=(expected[0], expected[1]))
    sha, flat = hashlib.sha256(), values.reshape(-1)
    for start in range(0, flat.size, HASH_BLOCK):
        sha.update(flat[start : start + HASH_BLOCK].tobytes())
    left_out = np.fromfile(path, dtype="<i8", offset=bounds[1])
    sha.update(left_out.tobytes())
    if sha.hexdigest() != metadata["sha256"]:
        raise ValueError("its values are not those that were written")
    return KeptFeatures(torch.from_numpy(values), tuple(left_out.tolist()))
