"""Read a pickle that can build numpy arrays and plain containers, and nothing else.

A pickle is a program: it may ask for any importable name and call it. Here the only names there are stand for
recorders that check and rebuild an array from its bytes, so numpy itself never acts on what a file says.
"""

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PLAIN_DTYPES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


class RefusedNameError(pickle.UnpicklingError):
    """A pickle asked for a name other than those that arrays and containers need."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the name {name}")
        self.name = name


def read_plain_pickle(path: Path) -> Any:
    """Read a pickle of dicts, lists, tuples, numbers, text and numpy arrays of numbers.

    Raises:
        RefusedNameError: it asks for any other name; nothing of it has been run.
        Exception: whatever the reader trips over when the file is damaged.
    """
    with path.open("rb") as file:
        # latin1 maps every byte to itself, which is what Python 2's byte strings need.
        return _finished(_PlainUnpickler(file, encoding="latin1").load())


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # numpy 2 renamed numpy.core; files name the one or the other.
        known = _KNOWN_NAMES.get((module.replace("numpy._core", "numpy.core"), name))
        if known is None:
            raise RefusedNameError(f"{module}.{name}")
        return known


class _Dtype:
    """Stands for numpy.dtype while a pickle is read."""

    __slots__ = ("dtype",)

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        if code not in PLAIN_DTYPES:
            raise pickle.UnpicklingError(f"an array of type {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] == ">":
            self.dtype = self.dtype.newbyteorder(">")


class _Array:
    """Stands for numpy.ndarray while a pickle is read."""

    __slots__ = ("array",)

    def __init__(self) -> None:
        self.array: npt.NDArray[Any] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, shape, dtype, is_fortran, data = state
        self.array = _array(data, dtype, shape, "F" if is_fortran else "C")


class _ArrayType:
    """Stands for the name numpy.ndarray, which pickles only pass to `_reconstruct`."""

    __slots__ = ()


def _array(data: Any, dtype: _Dtype, shape: tuple[int, ...], order: str) -> npt.NDArray[Any]:
    raw = data.encode("latin1") if isinstance(data, str) else data
    flat = np.frombuffer(raw, dtype.dtype)
    # Copied, because an array over immutable bytes is read-only; in native byte order, because torch knows no other.
    return flat.reshape(shape, order="F" if order == "F" else "C").astype(dtype.dtype.newbyteorder("="))


def _reconstruct(array_type: object, shape: object, code: object) -> _Array:
    return _Array()


def _from_buffer(data: Any, dtype: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
    built = _Array()
    built.array = _array(data, dtype, shape, order)
    return built


def _scalar(dtype: _Dtype, data: Any) -> Any:
    return _array(data, dtype, (), "C")[()]


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes spelled as {encoding!r}")
    return text.encode("latin1")


_KNOWN_NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _ArrayType,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _encode,
}


def _finished(value: Any) -> Any:
    """The same value with the arrays in place of their recorders."""
    if isinstance(value, _Array):
        if value.array is None:
            raise pickle.UnpicklingError("an array without values")
        return value.array
    if isinstance(value, dict):
        return {_finished(key): _finished(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_finished(item) for item in value)
    return value
