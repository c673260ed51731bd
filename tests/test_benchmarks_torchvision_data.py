"""Data sets in torchvision's layouts, written here as tiny ones, and what is said of one that is not whole."""

import hashlib
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from benchmarks.classification.data import CenterView, image_batches, read_splits
from benchmarks.classification.knn import run_knn
from benchmarks.classification.protocol import KnnProtocol
from benchmarks.classification.readable import unreadable
from benchmarks.classification.torchvision_data import SETS
from benchmarks.context import RunContext
from mocobench.runtime.errors import UserError
from mocobench.runtime.images import ImageFolder
from transfer.network import random_backbone

CONTEXT = RunContext(seed=0, device=torch.device("cpu"), precision="fp32", num_workers=0)
NAMES = [f"class{label}" for label in range(10)]


def gray(value: int, size: int) -> np.ndarray:
    return np.full((size, size), value, dtype=np.uint8)


def write_mnist(folder: Path, counts: dict[str, int]) -> None:
    """The idx format: two zero bytes, the type (8: bytes), the number of dimensions, each size, the values."""
    (folder / "raw").mkdir(parents=True)
    for split, count in counts.items():
        prefix = {"train": "train", "val": "t10k"}[split]
        images = np.stack([gray(20 * (index % 10), 28) for index in range(count)])
        labels = np.arange(count, dtype=np.uint8) % 10
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
            (folder / "raw" / f"{prefix}-{kind}-ubyte").write_bytes(header + values.tobytes())


def write_cifar10(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five training batches and a test batch of ten images each, whose hashes torchvision is made to expect."""
    folder.mkdir(parents=True)
    known = {}
    for name in ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"):
        rows = np.stack([np.full(3072, 20 * label, dtype=np.uint8) for label in range(10)])
        content = pickle.dumps({"data": rows, "labels": list(range(10))})
        (folder / name).write_bytes(content)
        known[name] = hashlib.md5(content).hexdigest()
    meta = pickle.dumps({"label_names": NAMES})
    (folder / "batches.meta").write_bytes(meta)
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [[n, h] for n, h in known.items() if n != "test_batch"])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", known["test_batch"]]])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {**datasets.CIFAR10.meta, "md5": hashlib.md5(meta).hexdigest()})


def write_stl10(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images as (N, 3, 96, 96), columns first; labels from 1."""
    folder.mkdir(parents=True)
    lists = {}
    for split, count in (("train", 20), ("test", 10), ("unlabeled", 0)):
        images = b"".join(np.full((3, 96, 96), 20 * (i % 10), dtype=np.uint8).tobytes() for i in range(count))
        parts = {"X": images, "y": bytes(i % 10 + 1 for i in range(count))}
        lists[split] = []
        for part, content in parts.items():
            (folder / f"{split}_{part}.bin").write_bytes(content)
            lists[split].append([f"{split}_{part}.bin", hashlib.md5(content).hexdigest()])
    (folder / "class_names.txt").write_text("\n".join(NAMES))
    (folder / "fold_indices.txt").write_text("")
    monkeypatch.setattr(datasets.STL10, "train_list", lists["train"] + lists["unlabeled"][:1])
    monkeypatch.setattr(datasets.STL10, "test_list", lists["test"])


def write_food101(folder: Path) -> None:
    """Ten classes in place of 101, two training images and a test image of each."""
    (folder / "meta").mkdir(parents=True)
    for split, numbers in (("train", (0, 1)), ("test", (2,))):
        listed = {name: [f"{name}/{number}" for number in numbers] for name in NAMES}
        (folder / "meta" / f"{split}.json").write_text(json.dumps(listed))
        for label, name in enumerate(NAMES):
            (folder / "images" / name).mkdir(parents=True, exist_ok=True)
            for number in numbers:
                Image.fromarray(gray(20 * label, 40)).save(folder / "images" / name / f"{number}.jpg")


WRITERS: dict[str, Callable[[Path, pytest.MonkeyPatch], None]] = {
    "MNIST": lambda folder, patch: write_mnist(folder, {"train": 20, "val": 10}),
    "FashionMNIST": lambda folder, patch: write_mnist(folder, {"train": 20, "val": 10}),
    "cifar-10-batches-py": write_cifar10,
    "stl10_binary": write_stl10,
    "food-101": lambda folder, patch: write_food101(folder),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_data_set_is_read_as_torchvision_reads_it(name: str, tmp_path: Path, monkeypatch) -> None:
    WRITERS[name](tmp_path / name, monkeypatch)
    splits = read_splits(tmp_path / name)
    assert splits.identity.name == name
    assert splits.identity.classes == 10
    assert splits.val.labels == tuple(range(10))
    assert len(splits.train) in (20, 50)
    order = list(range(len(splits.train)))
    view = CenterView(28, 28)
    for images, labels in image_batches(splits.train, order, view=view, batch_size=16, seed=0):
        # An image is as bright as its label says; JPEG may be off by one.
        assert (images.float().mean(dim=(1, 2, 3)) - 20.0 * labels).abs().max() <= 1
    few = splits.train.select([3, 7])
    assert few.labels == (splits.train.labels[3], splits.train.labels[7])
    assert few.list_sha256() != splits.train.list_sha256() == read_splits(tmp_path / name).train.list_sha256()


def test_sets_of_files_are_folders(tmp_path: Path) -> None:
    write_food101(tmp_path / "food-101")
    train = read_splits(tmp_path / "food-101").train
    assert isinstance(train, ImageFolder)
    (tmp_path / "food-101" / "images" / "class3" / "1.jpg").write_bytes(b"not an image")
    bad = unreadable(train, replace(CONTEXT, on_bad_image="skip"))
    assert [train.name(index) for index in bad] == ["images/class3/1.jpg"]


def test_a_task_runs_on_one(tmp_path: Path) -> None:
    write_mnist(tmp_path / "MNIST", {"train": 20, "val": 10})
    protocol = KnnProtocol(id="x", expected_images=(), image_size=28, test_resize=28, neighbors=(1,))
    measurement = run_knn(random_backbone("resnet18", 0), tmp_path / "MNIST", protocol, CONTEXT)
    assert measurement.metrics == {"top1_k1": 100.0}  # each validation image is in the training set too
    assert measurement.data.splits["val"].images == 10


@pytest.mark.parametrize("name", SETS)
def test_a_set_that_is_not_whole_is_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(
        UserError, match=rf"--data .*{name}: expected the files of torchvision's \w+, found: "
    ) as caught:
        read_splits(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert "download" not in str(caught.value)


@pytest.mark.parametrize("name", SETS)
def test_torchvision_has_every_set_with_its_splits(name: str) -> None:
    kind = SETS[name]
    parameters = getattr(datasets, kind.name).__init__.__code__.co_varnames
    assert {*kind.train, *kind.val, "download"} <= set(parameters)
