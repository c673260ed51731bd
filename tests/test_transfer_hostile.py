"""Hostile files: one that would act or take memory is refused before it does."""

import io
import os
import pickle
import socket
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from mocobench.runtime.errors import UserError
from tests.damaged_files import torch_bytes, whole_file
from tests.transfer_examples import narrow_resnets, trained_tensors
from transfer.load import load
from transfer.metadata import KEY_FOR_OTHERS

SECONDS_ALLOWED = 5.0  # of the processor, because others may have it too
PICKLING: dict[str, Callable[[Any], bytes]] = {
    "torch": torch_bytes,
    "legacy torch": lambda value: torch_bytes(value, legacy=True),
    "Lightning": lambda value: torch_bytes({"state_dict": {}, "hyper_parameters": value}),
    "pickle": pickle.dumps,
    "old pickle": lambda value: pickle.dumps(value, protocol=0),
}


@pytest.fixture(scope="module", autouse=True)
def _narrow() -> Iterator[None]:
    with narrow_resnets(1):
        yield


def refused(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    began = time.process_time()
    with pytest.raises(UserError, match=message):
        load(path)
    assert time.process_time() - began < SECONDS_ALLOWED


def test_a_pickle_that_asks_for_memory_is_refused_before_it_gets_any(tmp_path: Path) -> None:
    start = b"\x80\x04"
    huge = struct.pack("<Q", 2**45)
    refused(tmp_path / "f", start + b"B" + b"\xff" * 4 + b"x" * 99, "cut short or damaged")
    refused(tmp_path / "f", start + b"\x8e" + huge + b"x" * 99, "cut short or damaged")
    refused(tmp_path / "f", start + b"\x8d" + huge + b"x" * 99, "cut short or damaged")
    refused(tmp_path / "f", start + b"\x95" + huge + b"N.", "expected a dictionary|damaged")
    refused(tmp_path / "f", start + b"Nr\xff\xff\xff\xff.", "a memo of 4294967295 places in a file of 9 bytes")


def test_lists_of_lists_of_lists_take_no_time(tmp_path: Path) -> None:
    value: Any = []
    for _ in range(60):
        value = [value] * 10
    refused(tmp_path / "f", pickle.dumps({"model": value}), "found the keys 'model'")
    deep = b"\x80\x04}\x8c\x01a" + b"]" * 200_000 + b"a" * 199_999 + b"s."
    refused(tmp_path / "f", deep, "cut short or damaged")


def test_a_legacy_file_that_claims_a_huge_storage_is_refused(tmp_path: Path) -> None:
    whole = torch_bytes({"conv1.weight": torch.zeros(77_777)}, legacy=True)
    number = struct.pack("<i", 77_777)
    assert whole.count(b"J" + number) == 2  # the storage's size and the tensor's shape
    large = whole.replace(b"J" + number, b"J" + struct.pack("<i", 2**31 - 1))
    refused(tmp_path / "f", large, r"a storage of 2147483647 elements in a file of \d+ bytes")


def test_a_tensor_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    """A stride of 0 makes any shape of a single number."""
    tensors = trained_tensors("resnet18")
    tensors["conv1.weight"] = torch.zeros(1).as_strided((2**40, 3, 7, 7), (0, 0, 0, 0))
    refused(tmp_path / "f", torch_bytes(tensors), r"expected tensors that fit in a file of \d+ bytes, found some that")


def test_an_archive_that_swells_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10_000_000))
    refused(
        tmp_path / "f", buffer.getvalue(), r"found a compressed archive of \d+ bytes that holds 10000000; unpack it"
    )


def test_a_safetensors_header_is_held_to_the_file(tmp_path: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
    refused(tmp_path / "f", struct.pack("<Q", len(header)) + header + bytes(64), "cut short or damaged")
    refused(tmp_path / "f", struct.pack("<Q", 2**50) + header, "cut short or damaged")
    refused(tmp_path / "f", save({"a": torch.ones(1)}, metadata={KEY_FOR_OTHERS: "{"}), "found the keys 'a'")


class Deed:
    """Pickles as a call: whoever unpickles it freely makes the call."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize("container", PICKLING)
def test_what_would_run_connect_or_open_is_refused_by_name_and_not_done(tmp_path: Path, container: str) -> None:
    touched, secret = tmp_path / "touched", tmp_path / "secret"
    secret.write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        deeds = {
            r"(posix|nt)\.system": Deed(os.system, f"touch {touched}"),
            r"((__builtin__|builtins)\.)?exec": Deed(exec, f"open({str(touched)!r}, 'w')"),
            r"_?io\.open": Deed(open, str(secret)),
            r"socket\.create_connection": Deed(socket.create_connection, server.getsockname()),
        }
        for name, deed in deeds.items():
            content = PICKLING[container]({"model": deed})
            refused(tmp_path / "f", content, rf"asks for {name}, which was not run")
        with pytest.raises(BlockingIOError):  # nobody has called
            server.accept()
    assert not touched.exists()


def test_the_deeds_are_done_by_who_unpickles_freely(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Deed(os.system, f"touch {tmp_path / 'touched'}")))
    assert (tmp_path / "touched").exists()


def test_a_pickle_cannot_change_the_reader(tmp_path: Path) -> None:
    """BUILD sets attributes on whatever it is given, functions and classes too."""
    change = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nN}X\x0c\x00\x00\x00__defaults__)s\x86b."
    refused(tmp_path / "f", change, "cut short or damaged .*__defaults__")
    (tmp_path / "g").write_bytes(whole_file("pickle", trained_tensors("resnet18")))
    assert load(tmp_path / "g").format == "detectron2"
