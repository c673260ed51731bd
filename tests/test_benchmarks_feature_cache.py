"""Features kept between runs: the same as computed anew, computed anew where anything differs or is damaged."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from benchmarks.classification.data import CenterView, SquashedView, StillView, read_splits
from benchmarks.classification.extraction import extract_folder
from benchmarks.classification.features import FrozenBackbone, freeze
from benchmarks.context import RunContext
from mocobench.runtime.errors import UserError
from mocobench.runtime.images import ImageFolder
from transfer.network import random_backbone

CPU = torch.device("cpu")
CONTEXT = RunContext(seed=0, device=CPU, precision="fp32", num_workers=0)
VIEW = CenterView(36, 32)


@pytest.fixture(scope="module")
def frozen() -> FrozenBackbone:
    return freeze(random_backbone("resnet18", 0), device=CPU, precision="fp32")


@pytest.fixture
def train(bright_and_dark: Path) -> ImageFolder:
    return read_splits(bright_and_dark).train


def extract(frozen: FrozenBackbone, train: ImageFolder, folder: Path | None, view: StillView = VIEW) -> torch.Tensor:
    found = extract_folder(frozen, train, view, replace(CONTEXT, features=folder), label="features")
    assert found.labels.tolist() == list(train.labels)
    assert found.left_out == ()
    return found.features


def extract_bank(frozen: FrozenBackbone, train: ImageFolder, folder: Path | None) -> torch.Tensor:
    context = replace(CONTEXT, features=folder)
    return extract_folder(frozen, train, VIEW, context, label="features", form="unit float16").features


def refuse_to_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    def features(self: FrozenBackbone, images: torch.Tensor) -> torch.Tensor:
        raise AssertionError("computed although they are kept")

    monkeypatch.setattr(FrozenBackbone, "features", features)


def test_kept_features_are_those_computed(
    frozen: FrozenBackbone, train: ImageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = extract(frozen, train, None)
    assert torch.equal(extract(frozen, train, tmp_path / "kept"), expected)
    (file,) = (tmp_path / "kept").iterdir()
    assert torch.equal(load_file(file)["features"], expected)
    refuse_to_compute(monkeypatch)
    assert torch.equal(extract(frozen, train, tmp_path / "kept"), expected)


def test_anything_else_is_another_file(frozen: FrozenBackbone, train: ImageFolder, tmp_path: Path) -> None:
    extract(frozen, train, tmp_path)
    other = freeze(random_backbone("resnet18", 1), device=CPU, precision="fp32")
    assert torch.equal(extract(other, train, tmp_path), extract(other, train, None))
    assert torch.equal(
        extract(frozen, train, tmp_path, CenterView(40, 32)), extract(frozen, train, None, CenterView(40, 32))
    )
    few = train.select([0, 7])
    assert torch.equal(extract(frozen, few, tmp_path), extract(frozen, few, None))
    assert len(list(tmp_path.glob("features-*"))) == 4


def test_a_grid_and_another_kind_of_view_are_other_files(train: ImageFolder, tmp_path: Path) -> None:
    view, found = CenterView(80, 64), {}
    for grid in (1, 2):
        pooled = freeze(random_backbone("resnet18", 0), device=CPU, precision="fp32", grid=grid)
        found[grid] = extract(pooled, train, tmp_path, view)
        assert torch.equal(found[grid], extract(pooled, train, None, view))
        squashed = extract(pooled, train, tmp_path, SquashedView(80, 64))
        assert torch.equal(squashed, extract(pooled, train, None, SquashedView(80, 64)))
        assert not torch.equal(squashed, found[grid])
    assert [features.shape[1] for features in found.values()] == [512, 4 * 512]
    assert len(list(tmp_path.glob("features-*"))) == 4


def test_a_bank_is_of_unit_length_and_half_precision(
    frozen: FrozenBackbone, train: ImageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = F.normalize(extract(frozen, train, None), dim=1).half()
    assert torch.equal(extract_bank(frozen, train, None), expected)
    bank = extract_bank(frozen, train, tmp_path / "kept")
    assert bank.dtype == torch.float16
    assert torch.equal(bank, expected)
    (file,) = (tmp_path / "kept").iterdir()
    assert torch.equal(load_file(file)["features"], expected)
    assert 2 * expected.numel() < file.stat().st_size < 2 * expected.numel() + 1024
    refuse_to_compute(monkeypatch)
    assert torch.equal(extract_bank(frozen, train, tmp_path / "kept"), expected)


def test_a_bank_is_mapped_into_memory(frozen: FrozenBackbone, train: ImageFolder, tmp_path: Path) -> None:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("the system does not list what is mapped")
    bank = extract_bank(frozen, train, tmp_path / "kept")
    (file,) = (tmp_path / "kept").iterdir()
    (line,) = (line for line in maps.read_text().splitlines() if line.endswith(str(file)))
    first, last = (int(address, 16) for address in line.split()[0].split("-"))
    assert first <= bank.data_ptr() < last


def test_features_and_banks_are_files_of_their_own(
    frozen: FrozenBackbone, train: ImageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract_bank(frozen, train, tmp_path / "bank")
    (bank_file,) = (tmp_path / "bank").iterdir()
    # A bank is not taken for features.
    features = extract(frozen, train, tmp_path / "bank")
    assert torch.equal(features, extract(frozen, train, None))
    assert len(list((tmp_path / "bank").iterdir())) == 2
    # Of features that are kept a bank is made without computing them again, and is the same to the last bit.
    extract(frozen, train, tmp_path / "features")
    refuse_to_compute(monkeypatch)
    extract_bank(frozen, train, tmp_path / "features")
    assert (tmp_path / "features" / bank_file.name).read_bytes() == bank_file.read_bytes()
    assert len(list((tmp_path / "features").iterdir())) == 2


@pytest.mark.parametrize(
    ("extracted", "damage", "found"),
    [
        (extract, lambda content: content[:-4] + bytes(4), "its values are not those that were written"),
        (extract, lambda content: content[:-100], r"it has \d+ bytes instead of \d+"),
        (extract, lambda content: b"", "it is damaged|Expecting value"),
        (extract, lambda content: b"\xff" * 64, "it is damaged"),
        (extract, lambda content: content.replace(b"fp32", b"bf16"), "it holds other features than its name says"),
        (extract_bank, lambda content: content[:-4] + bytes(4), "its values are not those that were written"),
        (extract_bank, lambda content: content[:-100], r"it has \d+ bytes instead of \d+"),
        (extract_bank, lambda content: content.replace(b'"F16"', b'"F32"'), "it holds other features than its name"),
        (extract_bank, lambda content: content.replace(b"unit float16", b"unit float32"), "it holds other features"),
    ],
)
def test_a_damaged_file_is_noticed_and_made_again(
    frozen: FrozenBackbone,
    train: ImageFolder,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    extracted,
    damage,
    found: str,
) -> None:
    expected = extracted(frozen, train, tmp_path / "kept").clone()
    (file,) = (tmp_path / "kept").iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert torch.equal(extracted(frozen, train, tmp_path / "kept"), expected)
    assert re.search(found + r".*; the features are computed again", capsys.readouterr().out)
    assert file.read_bytes() == whole


def test_an_image_that_fails_leaves_no_file(frozen: FrozenBackbone, train: ImageFolder, tmp_path: Path) -> None:
    train.paths[3].write_bytes(b"not an image")
    with pytest.raises(UserError, match=r"3\.png: expected an image that can be decoded"):
        extract(frozen, train, tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir()) == []


def test_what_another_process_is_writing_stays(frozen: FrozenBackbone, train: ImageFolder, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    extract(frozen, train, kept)
    (file,) = kept.iterdir()
    file.unlink()
    left, written, other = (kept / f".{name}.tmp" for name in (f"{file.name}.1", f"{file.name}.2", "else.1"))
    for path in (left, written, other):
        path.write_bytes(b"half of it")
    lock = "import fcntl, sys; f = open(sys.argv[1], 'r+b'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", lock, written], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one:
        one.stdout.readline()
        extract(frozen, train, kept)
        assert set(kept.iterdir()) == {file, written, other}
        one.communicate(b"\n")


def test_a_folder_that_cannot_be_written_is_named(frozen: FrozenBackbone, train: ImageFolder, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write .*kept"):
        extract(frozen, train, tmp_path / "kept")
