"""Damaged files of every container: a clear error or a right read; never a crash, a hang, much memory, half a file."""

import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mocobench.runtime.errors import UserError
from tests.damaged_files import (
    CONTAINERS,
    whole_file,
    with_damaged_bytes,
    with_damaged_value,
    with_deep_value,
    with_doubled_name,
)
from tests.transfer_examples import narrow_resnets, trained_tensors
from transfer.convert import convert
from transfer.load import Loaded, load

# Of the processor, because others may have it too
SECONDS_ALLOWED, BYTES_ALLOWED = 5.0, 2**28
QUICK, ALL = 64, 10_000


@pytest.fixture(scope="module", autouse=True)
def _narrow() -> Iterator[None]:
    with narrow_resnets(1):
        yield


def peak_bytes() -> int:
    """The most memory that this process has had since `forget_peak`."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def try_variants(path: Path, container: str, seeds: range) -> dict[str, int]:
    """Read a damaged variant for every seed and count what became of them."""
    tensors = trained_tensors("resnet18")
    whole, counts = whole_file(container, tensors), {"read": 0, "refused": 0}
    for seed in seeds:
        chance = random.Random(seed)
        damage = {0: with_damaged_value, 2: with_deep_value, 4: with_damaged_value, 6: with_doubled_name}.get(seed % 8)
        path.write_bytes(damage(container, tensors, chance) if damage else with_damaged_bytes(whole, chance))
        began = time.process_time()
        try:
            loaded: Loaded | None = load(path)
        except UserError as error:
            loaded, message = None, str(error)
        assert time.process_time() - began < SECONDS_ALLOWED, seed
        if loaded is None:
            assert message.startswith(str(path)), (seed, message)
            assert "\n" not in message, seed
        else:
            assert damage in (None, with_doubled_name), (seed, damage)
            assert_is_whole(loaded, tensors, seed)
        counts["refused" if loaded is None else "read"] += 1
    return counts


def assert_is_whole(loaded: Loaded, tensors: dict[str, torch.Tensor], seed: int) -> None:
    """Every tensor is there, and its shape; a changed byte in a tensor's values cannot be known."""
    for name, tensor in tensors.items():
        found = loaded.backbone.tensors.get(name)
        assert found is not None or name.endswith("num_batches_tracked"), (seed, name)
        assert found is None or found.shape == tensor.shape, (seed, name)


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_damaged_file_is_refused_in_one_line_or_read(tmp_path: Path, container: str) -> None:
    forget_peak()
    before = peak_bytes()
    counts = try_variants(tmp_path / "variant", container, range(QUICK))
    assert counts["refused"] > QUICK / 4, counts
    assert peak_bytes() - before < BYTES_ALLOWED


@pytest.mark.fuzz
@pytest.mark.parametrize("container", CONTAINERS)
def test_ten_thousand_damaged_files(tmp_path: Path, container: str) -> None:
    forget_peak()
    before = peak_bytes()
    counts = try_variants(tmp_path / "variant", container, range(ALL))
    print(f"{container}: {counts}")
    assert peak_bytes() - before < BYTES_ALLOWED


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_damaged_file_is_not_half_converted(tmp_path: Path, container: str) -> None:
    whole = whole_file(container, trained_tensors("resnet18"))
    for kept in (0.2, 0.9):
        (tmp_path / "in").write_bytes(whole[: int(len(whole) * kept)])
        with pytest.raises(UserError):
            convert(tmp_path / "in", tmp_path / "out", to="safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
