"""`--on-bad-image skip`: what cannot be read is left out, counted and named, and an image read once is read once."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from msgspec import structs
from processes import in_processes
from test_benchmarks_bad_input import FOLDER_TASKS, bench, broken_image
from tiny_classification import PROTOCOLS, TASKS, run_tiny, tiny_network

from benchmarks.classification import fine_tuning
from benchmarks.classification.data import CenterView, read_splits
from benchmarks.classification.extraction import Extracted, extract_folder
from benchmarks.classification.features import FrozenBackbone, freeze
from benchmarks.classification.knn import run_knn
from benchmarks.classification.readable import unreadable
from benchmarks.classification.semi import run_semi
from benchmarks.context import RunContext
from benchmarks.result import read_result
from mocobench.runtime.errors import UserError
from mocobench.runtime.images import ImageFolder
from transfer.network import random_backbone

CPU = torch.device("cpu")
CONTEXT = RunContext(seed=0, device=CPU, precision="fp32", num_workers=0)
SKIP = replace(CONTEXT, on_bad_image="skip")
VIEW = CenterView(36, 32)
SKIPPED = ("train/dark/3.png: cannot be read", "val/bright/0.png: cannot be read")


@pytest.fixture(scope="module")
def frozen() -> FrozenBackbone:
    return freeze(random_backbone("resnet18", 0), device=CPU, precision="fp32")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fine_tuning, "build_network", tiny_network)


@pytest.fixture
def broken(bright_and_dark: Path) -> Path:
    """With an image in each split that cannot be read."""
    broken_image(bright_and_dark)
    (bright_and_dark / "val" / "bright" / "0.png").write_bytes(b"")
    return bright_and_dark


@pytest.fixture
def clean(broken: Path, tmp_path: Path) -> Path:
    """The same without these two."""
    shutil.copytree(broken, tmp_path / "clean" / "world")
    (tmp_path / "clean" / "world" / "train" / "dark" / "3.png").unlink()
    (tmp_path / "clean" / "world" / "val" / "bright" / "0.png").unlink()
    return tmp_path / "clean" / "world"


def extract(frozen: FrozenBackbone, data: Path, context: RunContext, folder: Path | None = None) -> Extracted:
    return extract_folder(frozen, read_splits(data).train, VIEW, replace(context, features=folder), label="features")


@pytest.mark.parametrize("task", FOLDER_TASKS)
def test_they_are_left_out_and_recorded(task: str, broken: Path, tmp_path: Path, capsys) -> None:
    labels = ("--labels", "1.0") if task == "imagenet-semi" else ()
    assert bench(task, broken, tmp_path / "results", "--on-bad-image", "skip", *labels) == 0
    assert "images that cannot be read: 2, train/dark/3.png first; they are left out" in capsys.readouterr().out
    (path,) = (tmp_path / "results").iterdir()
    data = read_result(path).data
    assert data.skipped == SKIPPED
    assert {name: split.images for name, split in data.splits.items() if name != "labelled"} == {"train": 11, "val": 5}
    assert bench(task, broken, tmp_path / "results", "--on-bad-image", "skip", *labels, "--trials", "1") == 0
    assert f"seed 0: skipped, {path} has the same settings" in capsys.readouterr().out


@pytest.mark.parametrize("task", ["linear", "sweep", "lbfgs", "knn", "semi"])
def test_a_run_is_one_on_data_without_them(task: str, broken: Path, clean: Path) -> None:
    backbone = random_backbone("resnet18", 0)
    found, expected = (
        TASKS[task](backbone, data, PROTOCOLS[task], context) for data, context in ((broken, SKIP), (clean, CONTEXT))
    )
    assert found.data == structs.replace(expected.data, skipped=SKIPPED)
    assert found.metrics == expected.metrics
    assert found.details["per_class"] == expected.details["per_class"]


def test_of_no_images_none_is_bad(bright_and_dark: Path) -> None:
    assert unreadable(read_splits(bright_and_dark).train.select([]), SKIP) == ()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_features_are_those_of_a_list_without_them(
    frozen: FrozenBackbone, broken: Path, clean: Path, num_workers: int
) -> None:
    found, expected = extract(frozen, broken, replace(SKIP, num_workers=num_workers)), extract(frozen, clean, CONTEXT)
    assert found.left_out == (9,)
    assert torch.equal(found.labels, expected.labels)
    torch.testing.assert_close(found.features, expected.features)


@pytest.mark.parametrize("on_bad_image", ["stop", "skip"])
@pytest.mark.parametrize("task", ["knn", "linear-once"])
def test_frozen_features_take_one_pass(task, on_bad_image, bright_and_dark, monkeypatch) -> None:
    reads, read = Counter(), ImageFolder.read

    def count(self: ImageFolder, index: int):
        reads[self.paths[index]] += 1
        return read(self, index)

    monkeypatch.setattr(ImageFolder, "read", count)
    TASKS[task](
        random_backbone("resnet18", 0), bright_and_dark, PROTOCOLS[task], replace(CONTEXT, on_bad_image=on_bad_image)
    )
    assert len(reads) == 18
    assert set(reads.values()) == {1}


def test_kept_features_say_which_images_they_are_without(
    frozen: FrozenBackbone, broken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    expected, kept = extract(frozen, broken, SKIP), tmp_path / "kept"
    extract(frozen, broken, SKIP, kept)
    (file,) = kept.iterdir()
    content = file.read_bytes()
    # The run that stops at such an image does not take them, and leaves them where they are.
    with pytest.raises(UserError, match=r"3\.png: expected an image that can be decoded"):
        extract(frozen, broken, CONTEXT, kept)
    assert "not used, it is without images that could not be read; the features are comp" in capsys.readouterr().out
    assert [path.read_bytes() for path in kept.iterdir()] == [content]

    monkeypatch.setattr(FrozenBackbone, "features", None)
    again = extract(frozen, broken, SKIP, kept)
    assert again.left_out == expected.left_out
    assert torch.equal(again.features, expected.features)
    assert torch.equal(again.labels, expected.labels)
    file.write_bytes(content[:-8] + bytes(8))  # the position of the one that is left out
    with pytest.raises(TypeError):
        extract(frozen, broken, SKIP, kept)
    assert "its values are not those that were written; the features are computed again" in capsys.readouterr().out


def test_nothing_that_can_be_read_is_an_error(frozen: FrozenBackbone, bright_and_dark: Path, tmp_path: Path) -> None:
    for path in (bright_and_dark / "train").rglob("*.png"):
        path.write_bytes(b"not an image")
    message = r"found 12 that cannot, bright/0\.png among them; look at --data"
    with pytest.raises(UserError, match=message):
        extract(frozen, bright_and_dark, SKIP)
    with pytest.raises(UserError, match=message):
        extract(frozen, bright_and_dark, SKIP, tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir()) == []
    with pytest.raises(UserError, match=message):
        unreadable(read_splits(bright_and_dark).train, SKIP)


@pytest.mark.parametrize("task", ["knn", "linear"])
def test_a_class_without_images_is_an_error(task: str, bright_and_dark: Path) -> None:
    for path in (bright_and_dark / "train" / "dark").iterdir():
        path.write_bytes(b"not an image")
    with pytest.raises(UserError, match="expected images to train on in every class, found none in dark; add some or"):
        TASKS[task](random_backbone("resnet18", 0), bright_and_dark, PROTOCOLS[task], SKIP)


def test_fewer_images_than_neighbors_is_an_error(broken: Path) -> None:
    with pytest.raises(UserError, match="expected at most the 11 training images, found 12; use fewer"):
        run_knn(random_backbone("resnet18", 0), broken, replace(PROTOCOLS["knn"], neighbors=(12,)), SKIP)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_images_of_every_epoch_are_looked_at_before(broken: Path, num_workers: int) -> None:
    splits, context = read_splits(broken), replace(SKIP, num_workers=num_workers)
    assert unreadable(splits.train, context) == (9,)
    assert unreadable(splits.val, context) == (0,)
    assert unreadable(splits.train, CONTEXT) == ()


@pytest.mark.parametrize("task", ["linear", "semi"])
def test_one_that_fails_later_is_named(task, bright_and_dark, monkeypatch) -> None:
    """The 12 and 6 images have been read once when a disk fails."""
    num_reads, read = 0, ImageFolder.read

    def fail_later(self: ImageFolder, index: int):
        nonlocal num_reads
        num_reads += 1
        if num_reads > 18:
            raise UserError(f"{self.paths[index]}: expected a file that can be read, found Input/output error")
        return read(self, index)

    monkeypatch.setattr(ImageFolder, "read", fail_later)
    with pytest.raises(
        UserError, match=r"\d\.png: .* found Input/output error, which could be read when the run began"
    ):
        TASKS[task](random_backbone("resnet18", 0), bright_and_dark, PROTOCOLS[task], SKIP)


def test_images_without_a_label_are_not_looked_at(broken: Path) -> None:
    labels = broken.parent / "labels.txt"
    labels.write_text("bright/0.png\nbright/1.png\nbright/2.png\ndark/0.png\ndark/1.png\ndark/2.png\n")
    context = replace(SKIP, label_list=labels)
    data = run_semi(random_backbone("resnet18", 0), broken, replace(PROTOCOLS["semi"], labels=0.5), context).data
    assert data.skipped == SKIPPED[1:]
    assert {name: split.images for name, split in data.splits.items()} == {"train": 12, "val": 5, "labelled": 6}
    labels.write_text("bright/0.png\nbright/1.png\nbright/2.png\ndark/1.png\ndark/2.png\ndark/3.png\n")
    data = run_semi(random_backbone("resnet18", 0), broken, replace(PROTOCOLS["semi"], labels=0.5), context).data
    assert data.skipped == SKIPPED
    assert {name: split.images for name, split in data.splits.items()} == {"train": 11, "val": 5, "labelled": 5}


def test_processes_leave_out_the_same(broken: Path, tmp_path: Path) -> None:
    files = []
    for count in (1, 3):
        context = {"on_bad_image": "skip", "features": tmp_path / str(count)}
        answers = in_processes(count, run_tiny, "knn", broken, context=context)
        assert [code for code, _ in answers] == [0] * count, answers
        assert {answer.data.skipped for _, answer in answers} == {SKIPPED}
        files.append([(path.name, path.read_bytes()) for path in sorted((tmp_path / str(count)).iterdir())])
    assert files[0] == files[1]


def test_a_killed_run_goes_on_without_them(broken: Path, tmp_path: Path) -> None:
    context = {"on_bad_image": "skip"}
    (expected,) = in_processes(1, run_tiny, "linear", broken, tmp_path / "whole", context=context)
    in_processes(1, run_tiny, "linear", broken, tmp_path / "out", kill_at=6, context=context)
    assert (tmp_path / "out" / "probe_last.pth").exists()
    assert in_processes(1, run_tiny, "linear", broken, tmp_path / "out", context=context) == [expected]
