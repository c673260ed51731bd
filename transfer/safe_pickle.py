"""Read a pickle that can build numpy arrays and plain containers, and nothing else.

A pickle is a program: it may ask for any importable name and call it. Here the only names there are stand for
recorders that check and rebuild an array from its bytes, so numpy itself never acts on what a file says.
"""

import pickle
from collections import OrderedDict
from collections.abc import Callable
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from transfer.pickle_sizes import check_sizes

PLAIN_DTYPES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


class RefusedNameError(pickle.UnpicklingError):
    """A pickle asked for a name other than those that arrays and containers need."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the name {name}")
        self.name = name


def read_plain_pickle(path: Path) -> Any:
    """Read a pickle of dicts, lists, tuples, numbers, text and numpy arrays of numbers, which are read-only.

    Raises:
        RefusedNameError: it asks for any other name; nothing of it has been run.
        TooLargeError: it asks for more memory than a file of its size can fill.
        Exception: whatever else the reader trips over when the file is damaged.
    """
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        check_sizes(content, len(content))
    with path.open("rb") as file:
        # latin1 maps every byte to itself, which is what Python 2's byte strings need.
        return _finished(_PlainUnpickler(file, encoding="latin1").load(), {})


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # numpy 2 renamed numpy.core; files name the one or the other.
        known = _KNOWN_NAMES.get((module.replace("numpy._core", "numpy.core"), name))
        if known is None:
            raise RefusedNameError(f"{module}.{name}")
        return known


class _Callable:
    """Stands for a function or class: a pickle can call it and, unlike those, not set anything on it."""

    __slots__ = ("_call",)
    _call: Callable[..., Any]

    def __init__(self, call: Callable[..., Any]) -> None:
        object.__setattr__(self, "_call", call)

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError(f"a change of {name}")

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)


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


def _array(data: Any, dtype: _Dtype, shape: tuple[int, ...], order: str) -> npt.NDArray[Any]:
    raw = data.encode("latin1") if isinstance(data, str) else data
    flat = np.frombuffer(raw, dtype.dtype)
    # In native byte order, because torch knows no other; where it is that, it is not copied.
    return flat.reshape(shape, order="F" if order == "F" else "C").astype(dtype.dtype.newbyteorder("="), copy=False)


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


def _array_type() -> None:
    raise pickle.UnpicklingError("an array made by its type")  # which pickles only pass to `_reconstruct`


_KNOWN_NAMES = {
    ("numpy", "dtype"): _Callable(_Dtype),
    ("numpy", "ndarray"): _Callable(_array_type),
    ("numpy.core.multiarray", "_reconstruct"): _Callable(_reconstruct),
    ("numpy.core.multiarray", "scalar"): _Callable(_scalar),
    ("numpy.core.numeric", "_frombuffer"): _Callable(_from_buffer),
    ("collections", "OrderedDict"): _Callable(OrderedDict),
    ("_codecs", "encode"): _Callable(_encode),
}


def _finished(value: Any, done: dict[int, Any]) -> Any:
    """The same value with the arrays in place of their recorders.

    What is shared stays shared (`done` has it by its identity): ten lists that each hold the one before ten times are a
    few bytes, and ten to the tenth values to whoever walks through them all.
    """
    if not isinstance(value, _Array | dict | list | tuple):
        return value
    if id(value) not in done:
        done[id(value)] = None  # what a container that holds itself finds in its own place
        done[id(value)] = _finished_container(value, done)
    return done[id(value)]


def _finished_container(value: Any, done: dict[int, Any]) -> Any:
    if isinstance(value, _Array):
        if value.array is None:
            raise pickle.UnpicklingError("an array without values")
        return value.array
    if isinstance(value, dict):
        return {_finished(key, done): _finished(item, done) for key, item in value.items()}
    return type(value)(_finished(item, done) for item in value)
