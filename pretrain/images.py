"""The images to train on: how many, one by its number, in which order an epoch takes them, and what they are."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mocobench.runtime.errors import UserError
from mocobench.runtime.files import printable
from mocobench.runtime.images import IMAGE_SUFFIXES, list_images, list_sha256, read_content
from mocobench.runtime.seeds import torch_generator
from pretrain.decoding import decode_pixels
from pretrain.shards import ShardImages, expand_pattern, open_shards


@dataclass(frozen=True, eq=False)
class FolderImages:
    """The image files below one folder, sorted by path: their names below it, as bytes (N,).

    An array and not a tuple: the workers share it with the process they come from. What cannot be read or decoded is a
    UserError.
    """

    root: Path
    names: np.ndarray

    @staticmethod
    def below(root: Path) -> "FolderImages":
        """All of them; the errors are those of `list_images`."""
        start = len(os.fsencode(root)) + 1
        return FolderImages(root, np.array([os.fsencode(path)[start:] for path in list_images(root)]))

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> Path:
        """Where image `index` is."""
        return self.root / os.fsdecode(bytes(self.names[index]))

    def content(self, index: int) -> bytes:
        """The bytes of image `index`'s file."""
        return read_content(self.path(index))

    def decode(self, index: int, content: bytes) -> torch.Tensor:
        """Image `index` from its bytes, RGB, uint8 (3, H, W)."""
        return decode_pixels(content, name=str(self.path(index)))

    def name(self, index: int) -> str:
        """What a record calls image `index`."""
        return printable(self.path(index).relative_to(self.root).as_posix())

    def order(self, *, seed: int, epoch: int) -> torch.Tensor:
        """Every index once, int64 (N,), in the order of the epoch."""
        return torch.randperm(len(self), generator=torch_generator(seed, "order", epoch))

    def identity(self) -> dict[str, Any]:
        """What tells these images from others: their number, and a hash over names and sizes."""
        return {"images": len(self), "list_sha256": list_sha256(self.root, map(self.path, range(len(self))))}


TrainingImages = FolderImages | ShardImages


def read_image(images: TrainingImages, index: int) -> torch.Tensor:
    """Image `index`, RGB, uint8 (3, H, W).

    Raises:
        UserError: it cannot be read or decoded.
    """
    return images.decode(index, images.content(index))


def training_images(data: Path) -> TrainingImages:
    """All images below `data/train`, or in the shards there or of a pattern; labels are not needed.

    Args:
        data: a folder whose `train` holds images, in folders or not, or tar shards; or the shards themselves, as one
            name or a pattern such as `train-{0000..0146}.tar`.

    Raises:
        UserError: no such folder or shards, no images there, or a broken shard.
    """
    if data.suffix == ".tar" and not data.is_dir():
        return open_shards(expand_pattern(data))
    if not data.is_dir():
        found = "a file" if data.exists() else "no such folder"
        raise UserError(f"--data {data}: expected a folder that holds train/, or shards (.tar), found {found}")
    if not (data / "train").is_dir():
        found = ", ".join(sorted(entry.name for entry in data.iterdir())[:5]) or "nothing"
        raise UserError(f"--data {data}: expected train/ with images below it, found {found}")
    shards = tuple(sorted((data / "train").glob("[!.]*.tar")))
    if not shards:
        return FolderImages.below(data / "train")
    for entry in (data / "train").glob("[!.]*"):
        if entry.is_dir() or entry.suffix.lower() in IMAGE_SUFFIXES:
            raise UserError(f"--data {data}: expected shards or images in train/, found {shards[0].name}, {entry.name}")
    return open_shards(shards)
