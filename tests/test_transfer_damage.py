"""Damaged and hostile files of every container: a clear error or a right read; never a crash, a hang or much memory."""

import io
import pickle
import random
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
from tests.transfer_examples import narrow_resnets, trained_tensors
from transfer.backbone import is_counter
from transfer.convert import convert
from transfer.load import Loaded, load
from transfer.metadata import KEY_FOR_OTHERS

SECONDS_ALLOWED = 5.0
QUICK, ALL = 60, 10_000


@pytest.fixture(scope="module", autouse=True)
def _narrow() -> Iterator[None]:
    with narrow_resnets(1):
        yield


def torch_bytes(value: Any, *, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def detectron2_bytes(tensors: dict[str, torch.Tensor]) -> bytes:
    from transfer.detectron2_names import DETECTRON2_NAMES

    model = {_or_itself(DETECTRON2_NAMES.theirs, name): tensor.numpy() for name, tensor in tensors.items()}
    return pickle.dumps({"model": model, "__author__": "MOCO", "matching_heuristics": True})


def _or_itself(translate: Callable[[str], str], name: str) -> str:
    try:
        return translate(name)
    except ValueError:
        return name


CONTAINERS: dict[str, Callable[[dict[str, torch.Tensor]], bytes]] = {
    "torch": lambda tensors: torch_bytes({"state_dict": tensors, "epoch": 3}),
    "legacy torch": lambda tensors: torch_bytes({"state_dict": tensors, "epoch": 3}, legacy=True),
    "pickle": detectron2_bytes,
    "safetensors": lambda tensors: save(tensors, metadata={"format": "pt"}),
}


def damaged_values(tensors: dict[str, torch.Tensor], chance: random.Random) -> dict[str, torch.Tensor]:
    """One tensor of another type or shape, missing, extra, under a second name, or not finite."""
    name = chance.choice([name for name in tensors if not is_counter(name)])
    tensor = tensors[name]
    kind = chance.randrange(6)
    if kind == 0:
        return tensors | {name: tensor.to(chance.choice([torch.float16, torch.float64, torch.int32, torch.uint8]))}
    if kind == 1:
        return tensors | {name: tensor.reshape(-1)[: chance.randrange(tensor.numel())].clone()}
    if kind == 2:
        return {other: t for other, t in tensors.items() if other != name}
    if kind == 3:
        return tensors | {f"module.{name}": tensor.clone()}
    if kind == 4:
        return tensors | {f"{name}.{chance.randrange(99)}": tensor.clone()}
    return tensors | {name: torch.full(tensor.shape, float("nan"))}


def damaged_bytes(whole: bytes, chance: random.Random) -> bytes:
    """The file cut short, with bits flipped, bytes overwritten, a part twice or a part left out."""
    kind, start = chance.randrange(5), chance.randrange(len(whole))
    # Half of the damage goes where the structure is: the head and the tail.
    if chance.random() < 0.5:
        start = chance.choice([chance.randrange(4096), len(whole) - 1 - chance.randrange(4096)]) % len(whole)
    length = chance.randrange(1, 64)
    if kind == 0:
        return whole[:start]
    if kind == 1:
        return whole[:start] + bytes([whole[start] ^ 1 << chance.randrange(8)]) + whole[start + 1 :]
    if kind == 2:
        return whole[:start] + chance.randbytes(length) + whole[start + length :]
    if kind == 3:
        return whole[: start + length] + whole[start:]
    return whole[:start] + whole[start + length :]


def try_variants(path: Path, container: str, seeds: range) -> dict[str, int]:
    """Read a damaged variant for every seed and count what became of them."""
    make, tensors = CONTAINERS[container], trained_tensors("resnet18")
    whole, counts = make(tensors), {"read": 0, "refused": 0}
    for seed in seeds:
        chance = random.Random(seed)
        by_value = seed % 4 == 0
        path.write_bytes(make(damaged_values(tensors, chance)) if by_value else damaged_bytes(whole, chance))
        began = time.monotonic()
        try:
            loaded: Loaded | None = load(path)
        except UserError as error:
            loaded, message = None, str(error)
        assert time.monotonic() - began < SECONDS_ALLOWED, seed
        if loaded is None:
            assert message.startswith(str(path)), (seed, message)
            assert "\n" not in message, seed
        else:
            assert loaded.backbone.tensors["conv1.weight"].shape == (1, 3, 7, 7), seed
            assert not by_value, seed
        counts["refused" if loaded is None else "read"] += 1
    return counts


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_damaged_file_is_refused_in_one_line_or_read(tmp_path: Path, container: str) -> None:
    counts = try_variants(tmp_path / "variant", container, range(QUICK))
    assert counts["refused"] > QUICK / 4, counts


@pytest.mark.slow
@pytest.mark.parametrize("container", CONTAINERS)
def test_ten_thousand_damaged_files(tmp_path: Path, container: str) -> None:
    try_variants(tmp_path / "variant", container, range(QUICK, ALL))


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_damaged_file_is_not_half_converted(tmp_path: Path, container: str) -> None:
    whole = CONTAINERS[container](trained_tensors("resnet18"))
    for kept in (0.2, 0.9):
        (tmp_path / "in").write_bytes(whole[: int(len(whole) * kept)])
        with pytest.raises(UserError):
            convert(tmp_path / "in", tmp_path / "out", to="safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def refused(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    began = time.monotonic()
    with pytest.raises(UserError, match=message):
        load(path)
    assert time.monotonic() - began < SECONDS_ALLOWED


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


@pytest.mark.parametrize(
    "name", [b"os\nsystem", b"socket\ncreate_connection", b"builtins\nopen", b"builtins\nexec", b"shutil\nrmtree"]
)
def test_what_would_run_open_or_connect_is_refused_by_name(tmp_path: Path, name: bytes) -> None:
    call = b"c" + name + b"\n(X\x05\x00\x00\x00/tmp/tR."
    pattern = rf"asks for {name.decode().replace(chr(10), '.')}, which was not run"
    refused(tmp_path / "f", b"\x80\x02" + call, pattern)


def test_a_pickle_cannot_change_the_reader(tmp_path: Path) -> None:
    """BUILD sets attributes on whatever it is given, functions and classes too."""
    change = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nN}X\x0c\x00\x00\x00__defaults__)s\x86b."
    refused(tmp_path / "f", change, "cut short or damaged .*__defaults__")
    (tmp_path / "g").write_bytes(CONTAINERS["pickle"](trained_tensors("resnet18")))
    assert load(tmp_path / "g").format == "detectron2"
