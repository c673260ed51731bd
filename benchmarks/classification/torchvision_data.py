"""Data sets as torchvision lays them out, read by torchvision itself and never downloaded.

A set is known by the name of its folder, the one that torchvision makes below its `root`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mocobench.runtime.errors import UserError
from mocobench.runtime.images import ImageFolder


@dataclass(frozen=True)
class TorchvisionSet:
    """A class of torchvision.datasets, what it calls its splits, and the attributes that hold labels and files.

    `files` is None where the images are arrays in memory, `dataset.data`.
    """

    name: str
    train: dict[str, Any]
    val: dict[str, Any]
    labels: str
    files: str | None = None


TRAIN_OR_NOT: dict[str, Any] = {"train": {"train": True}, "val": {"train": False}}
TRAIN_AND_TEST: dict[str, Any] = {"train": {"split": "train"}, "val": {"split": "test"}}

# By folder. Another set of torchvision's is another line.
SETS = {
    "cifar-10-batches-py": TorchvisionSet("CIFAR10", **TRAIN_OR_NOT, labels="targets"),
    "cifar-100-python": TorchvisionSet("CIFAR100", **TRAIN_OR_NOT, labels="targets"),
    "MNIST": TorchvisionSet("MNIST", **TRAIN_OR_NOT, labels="targets"),
    "FashionMNIST": TorchvisionSet("FashionMNIST", **TRAIN_OR_NOT, labels="targets"),
    "stl10_binary": TorchvisionSet("STL10", **TRAIN_AND_TEST, labels="labels"),
    "food-101": TorchvisionSet("Food101", **TRAIN_AND_TEST, labels="_labels", files="_image_files"),
    "dtd": TorchvisionSet("DTD", **TRAIN_AND_TEST, labels="_labels", files="_image_files"),
}


@dataclass(frozen=True)
class ArrayImages:
    """Labelled images that a torchvision data set holds in memory; `positions[i]` is where image i is in it."""

    dataset: Any
    positions: tuple[int, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.positions)

    def read(self, index: int) -> Image.Image:
        """An image as 8-bit RGB."""
        image: Image.Image = self.dataset[self.positions[index]][0]
        return image.convert("RGB")

    def name(self, index: int) -> str:
        """An image's number in its split, from 0."""
        return str(self.positions[index])

    def list_sha256(self) -> str:
        """SHA-256 over names, labels and pixels."""
        digest = hashlib.sha256()
        for index, position in enumerate(self.positions):
            digest.update(f"{self.name(index)}\t{self.labels[index]}\n".encode())
            digest.update(np.asarray(self.dataset.data[position]).tobytes())
        return digest.hexdigest()

    def select(self, positions: Sequence[int]) -> "ArrayImages":
        """The images at these places alone; the classes stay."""
        return replace(
            self,
            positions=tuple(self.positions[index] for index in positions),
            labels=tuple(self.labels[index] for index in positions),
        )


LabelledImages = ImageFolder | ArrayImages


def read_torchvision(data: Path) -> tuple[LabelledImages, LabelledImages]:
    """The images that are trained on and those that are tested on, of a folder that `SETS` names.

    Raises:
        UserError: torchvision finds files missing or changed; in its own words.
    """
    from torchvision import datasets

    kind = SETS[data.name]
    found: list[LabelledImages] = []
    for keywords in (kind.train, kind.val):
        try:
            dataset = getattr(datasets, kind.name)(data.parent, download=False, **keywords)
        except (RuntimeError, OSError, ValueError, EOFError) as error:
            why = " ".join(str(error).split()).removesuffix(" You can use download=True to download it").rstrip(".")
            raise UserError(
                f"--data {data}: expected the files of torchvision's {kind.name}, found: {why}; unpack it there"
            ) from error
        labels, classes = tuple(int(label) for label in getattr(dataset, kind.labels)), tuple(dataset.classes)
        if kind.files is None:
            found.append(ArrayImages(dataset, tuple(range(len(labels))), labels, classes))
        else:
            paths = tuple(Path(path) for path in getattr(dataset, kind.files))
            found.append(ImageFolder(data, paths, labels, classes))
    return found[0], found[1]
