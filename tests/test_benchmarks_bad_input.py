"""What is wrong with a classification run's input: one line, status 2, and nothing half-written.

Images that cannot be read and are left out: test_benchmarks_bad_images.py.
"""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks.classification.data import read_splits
from benchmarks.result import read_result
from mocobench.cli import main

FOLDER_TASKS = ("imagenet-linear", "imagenet-knn", "imagenet-semi")
SMALL = ("--image-size", "32", "--test-resize", "36", "--arch", "resnet18", "--workers", "0", "--device", "cpu")


def bench(task: str, data: Path, results: Path, *flags: str) -> int:
    neighbors = ("--neighbors", "1,5") if task == "imagenet-knn" else ("--epochs", "2")
    command = ["bench", task, "--protocol", "smoke", "--backbone", "random", "--data", str(data), *SMALL, *neighbors]
    return main([*command, "--results", str(results), *flags])


def one_class(data: Path) -> None:
    for split in ("train", "val"):
        (data / split / "bright").rename(data / f"{split}-bright")


def empty_class(data: Path) -> None:
    (data / "train" / "ape").mkdir()


def other_labels(data: Path) -> None:
    (data / "val" / "dark").rename(data / "val" / "black")


def broken_image(data: Path) -> None:
    (data / "train" / "dark" / "3.png").write_bytes(b"not an image")


@pytest.mark.parametrize("task", FOLDER_TASKS)
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (one_class, r"error: .*train: expected at least two class folders, found one, dark\n"),
        (empty_class, r"error: .*train/ape: expected images .*, found none; add some or remove it\n"),
        (other_labels, r"error: .*val: expected classes that .*train has too, found black; rename or remove them\n"),
        (broken_image, r"error: .*dark/3\.png: expected an image that can be decoded, .* with --on-bad-image skip\n"),
    ],
)
def test_bad_data_is_one_line(
    task: str, spoil: Callable[[Path], None], message: str, bright_and_dark: Path, tmp_path: Path, capsys
) -> None:
    spoil(bright_and_dark)
    labels = ("--labels", "1.0") if task == "imagenet-semi" else ()
    assert bench(task, bright_and_dark, tmp_path / "results", *labels) == 2
    assert re.fullmatch(message, capsys.readouterr().err)
    assert not (tmp_path / "results").exists()


def test_more_neighbors_than_images_is_one_line(bright_and_dark: Path, tmp_path: Path, capsys) -> None:
    assert bench("imagenet-knn", bright_and_dark, tmp_path / "results", "--neighbors", "13") == 2
    assert "expected at most the 12 training images, found 13; use fewer" in capsys.readouterr().err


def test_a_full_disk_is_one_line(bright_and_dark: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    def no_room(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("benchmarks.classification.feature_cache.FeatureFile.append", no_room)
    kept = tmp_path / "kept"
    assert bench("imagenet-knn", bright_and_dark, tmp_path / "results", "--features", str(kept)) == 2
    assert re.fullmatch(
        r"error: cannot write .*kept/features-\w+\.\w+: No space left on device\n", capsys.readouterr().err
    )
    assert list(kept.iterdir()) == []


def test_classes_without_validation_images_are_said(bright_and_dark: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bright_and_dark / "train" / "gray").mkdir()
    Image.new("RGB", (40, 40), (120, 120, 120)).save(bright_and_dark / "train" / "gray" / "0.png")
    splits = read_splits(bright_and_dark)
    assert capsys.readouterr().out == "1 of 3 classes have no validation images: gray\n"
    assert splits.val.classes == splits.train.classes == ("bright", "dark", "gray")
    assert torch.tensor(splits.val.labels).bincount(minlength=3).tolist() == [3, 3, 0]


def test_a_list_of_labels_tells_images_of_one_name_apart(bright_and_dark: Path, tmp_path: Path, capsys) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("0.png\n")
    flags = ("--label-list", str(labels))
    assert bench("imagenet-semi", bright_and_dark, tmp_path / "results", *flags) == 2
    assert "found 0.png, which is in several classes; write CLASS/NAME" in capsys.readouterr().err
    labels.write_text("bright/0.png\ndark/0.png\nbright/1.png\ndark/4.png\n")
    assert bench("imagenet-semi", bright_and_dark, tmp_path / "results", *flags) == 0
    (path,) = (tmp_path / "results").iterdir()
    result = read_result(path)
    # Two of six are no tenth of a class.
    listed = result.data.splits["listed"]
    assert listed.images == 4
    difference = f"labelled images: 0.1 of each class -> 4 of a list (sha256 {listed.list_sha256[:12]})"
    assert difference in result.protocol.differs
    assert bench("imagenet-semi", bright_and_dark, tmp_path / "results", *flags, "--trials", "1") == 0
    assert "seed 0: skipped" in capsys.readouterr().out
    labels.write_text("bright/0.png\ndark/0.png\nbright/1.png\ndark/5.png\n")
    assert bench("imagenet-semi", bright_and_dark, tmp_path / "results", *flags, "--trials", "1") == 0
    assert "skipped" not in capsys.readouterr().out
    assert len(list((tmp_path / "results").iterdir())) == 2
