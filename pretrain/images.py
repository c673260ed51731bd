"""The images to train on: how many, one by its number, in which order an epoch takes them, and what they are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from mocobench.runtime.errors import UserError
from mocobench.runtime.images import list_images, list_sha256, read_rgb
from mocobench.runtime.seeds import torch_generator


@dataclass(frozen=True)
class FolderImages:
    """The image files below one folder, sorted by path."""

    root: Path
    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> Image.Image:
        """Image `index`, RGB.

        Raises:
            UserError: it cannot be read.
        """
        return read_rgb(self.paths[index])

    def name(self, index: int) -> str:
        """What a record calls image `index`."""
        return self.paths[index].relative_to(self.root).as_posix()

    def order(self, *, seed: int, epoch: int) -> torch.Tensor:
        """Every index once, int64 (N,), in the order of the epoch."""
        return torch.randperm(len(self), generator=torch_generator(seed, "order", epoch))

    def identity(self) -> dict[str, Any]:
        """What tells these images from others: their number, and a hash over names and sizes."""
        return {"images": len(self), "list_sha256": list_sha256(self.root, self.paths)}


TrainingImages = FolderImages


def training_images(data: Path) -> TrainingImages:
    """All images below `data/train`, sorted; labels are not needed.

    Raises:
        UserError: no such folder, no `train` in it, or no images below that.
    """
    if not data.is_dir():
        raise UserError(f"--data {data}: expected a folder that holds train/, found no such folder")
    if not (data / "train").is_dir():
        found = ", ".join(sorted(entry.name for entry in data.iterdir())[:5]) or "nothing"
        raise UserError(f"--data {data}: expected train/ with images below it, found {found}")
    return FolderImages(data / "train", list_images(data / "train"))
