"""The restricted reader: it builds arrays and plain containers, and refuses every other name without running it."""

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mocobench.runtime.errors import UserError
from transfer.container import open_checkpoint
from transfer.safe_pickle import RefusedNameError, read_plain_pickle

PROTOCOLS = range(6)


class Touch:
    """Pickles as a call of os.system that would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def written(path: Path, value: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_reads_what_numpy_and_python_wrote(tmp_path: Path, protocol: int) -> None:
    value = {
        "c": np.array([[1.5, -2.0, 3.0], [4.0, 5.0, 6.0]], np.float32),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
        "counter": np.array(7, np.int64),
        "big endian": np.array([1, 256], ">i4"),
        "strided": np.arange(10, dtype=np.float64)[::3],
        "scalar": np.float32(0.25),
        "plain": [1, 2.5, "text", None, True, (1, 2), b"\x80\xff"],
        "ordered": OrderedDict(a=1),
    }
    read = read_plain_pickle(written(tmp_path / "f", value, protocol))
    for name in ("c", "fortran", "counter", "big endian", "strided"):
        assert read[name].shape == value[name].shape
        assert read[name].dtype == value[name].dtype.newbyteorder("=")
        np.testing.assert_array_equal(read[name], value[name])
    assert read["scalar"] == 0.25
    assert read["plain"] == value["plain"]
    assert read["ordered"] == {"a": 1}


def test_arrays_are_not_copied_and_so_read_only(tmp_path: Path) -> None:
    array = read_plain_pickle(written(tmp_path / "f", np.zeros(3)))
    assert not array.flags.writeable
    assert not array.flags.owndata


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_refuses_other_names_and_never_runs_them(tmp_path: Path, protocol: int) -> None:
    touched = tmp_path / "touched"
    path = written(tmp_path / "f", {"model": Touch(touched)}, protocol)
    with pytest.raises(RefusedNameError, match=r"posix\.system|nt\.system"):
        read_plain_pickle(path)
    with pytest.raises(
        UserError,
        match=r"found a pickle that asks for (posix|nt)\.system, which was not run; .* write it with pickle\.dump",
    ):
        open_checkpoint(path)
    assert not touched.exists()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_refuses_a_file_that_is_nothing_but_a_call(tmp_path: Path, protocol: int) -> None:
    path = written(tmp_path / "f", Touch(tmp_path / "touched"), protocol)
    with pytest.raises(UserError, match=r"asks for (posix|nt)\.system, which was not run"):
        open_checkpoint(path)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("name", [b"builtins\neval\n", b"numpy\nload\n", b"numpy.core.multiarray\nfromfile\n"])
def test_refuses_by_name(tmp_path: Path, name: bytes) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"\x80\x02c" + name + b".")
    with pytest.raises(RefusedNameError, match=name.decode().strip().replace("\n", r"\.")):
        read_plain_pickle(path)


@pytest.mark.parametrize("array", [np.array([{}], object), np.array(["text"]), np.zeros(2, [("a", "f4")])])
def test_refuses_arrays_of_anything_but_numbers(tmp_path: Path, array: Any) -> None:
    with pytest.raises(pickle.UnpicklingError, match="an array of type"):
        read_plain_pickle(written(tmp_path / "f", array))


def test_an_array_shorter_than_its_shape_is_an_error(tmp_path: Path) -> None:
    whole = pickle.dumps(np.zeros(3, np.float32), protocol=4)
    (tmp_path / "f").write_bytes(whole.replace(b"K\x03\x85", b"K\x04\x85"))
    with pytest.raises(ValueError, match="reshape"):
        read_plain_pickle(tmp_path / "f")
