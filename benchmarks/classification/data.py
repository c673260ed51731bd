"""Labelled image folders in, batches of views out: what a view shows depends on (seed, epoch, image) alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms import functional as F

from benchmarks.result import DataIdentity, SplitIdentity
from mocobench.runtime.errors import UserError
from mocobench.runtime.images import ImageFolder, list_image_folder, read_rgb
from mocobench.runtime.seeds import derive_seed

Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class LabelledSplits:
    """Training and validation images whose labels index one tuple of classes, the training folder's."""

    train: ImageFolder
    val: ImageFolder
    identity: DataIdentity


def read_splits(data: Path) -> LabelledSplits:
    """List `data/train/<class>/` and `data/val/<class>/`; a class is known by its folder's name.

    Raises:
        UserError: `train` or `val` is missing or holds no images, there is one class only, or validation classes
            are not among the training classes.
    """
    if not data.is_dir():
        raise UserError(f"--data {data}: expected a folder that holds train/ and val/, found no such folder")
    for split in ("train", "val"):
        if not (data / split).is_dir():
            found = ", ".join(sorted(entry.name for entry in data.iterdir())[:5]) or "nothing"
            raise UserError(f"--data {data}: expected {split}/ with one folder of images per class, found {found}")
    train, val = list_image_folder(data / "train"), list_image_folder(data / "val")
    if len(train.classes) < 2:
        raise UserError(f"{train.root}: expected at least two class folders, found one, {train.classes[0]}")
    unknown = [name for name in val.classes if name not in train.classes]
    if unknown:
        shown = ", ".join(unknown[:5]) + (f", ... {len(unknown) - 5} more" if len(unknown) > 5 else "")
        raise UserError(f"{val.root}: expected classes that {train.root} has too, found {shown}; rename or remove them")
    val = _relabel(val, train.classes)
    splits = {
        name: SplitIdentity(images=len(folder.paths), list_sha256=folder.list_sha256())
        for name, folder in (("train", train), ("val", val))
    }
    return LabelledSplits(train, val, DataIdentity(data.resolve().name, len(train.classes), splits))


def _relabel(folder: ImageFolder, classes: tuple[str, ...]) -> ImageFolder:
    label_of = [classes.index(name) for name in folder.classes]
    return replace(folder, labels=tuple(label_of[label] for label in folder.labels), classes=classes)


@dataclass(frozen=True)
class CenterView:
    """The shorter side resized to `resize` pixels, then the central `size` x `size`."""

    resize: int
    size: int

    def __call__(self, image: Image.Image, seed: int) -> Image.Image:
        """The same for every seed."""
        return F.center_crop(F.resize(image, self.resize), [self.size, self.size])


@dataclass(frozen=True)
class RandomView:
    """torchvision's RandomResizedCrop to `size` x `size` and a horizontal flip, drawn from a seed."""

    size: int
    scale: tuple[float, float]
    ratio: tuple[float, float]
    flip_probability: float

    def __call__(self, image: Image.Image, seed: int) -> Image.Image:
        # torchvision draws from the global generator: seed it for this view, then give it back as it was.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            view = transforms.RandomResizedCrop(self.size, self.scale, self.ratio)(image)
            return transforms.RandomHorizontalFlip(self.flip_probability)(view)


View = CenterView | RandomView


@dataclass(frozen=True)
class _Views(Dataset[tuple[torch.Tensor, int] | UserError]):
    folder: ImageFolder
    view: View
    seed: int
    epoch: int

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int] | UserError:
        try:
            image = read_rgb(self.folder.paths[index])
        except UserError as error:
            # As a value: raised in a worker process, its one line would come back buried in a traceback.
            return error
        view = self.view(image, derive_seed(self.seed, "view", self.epoch, index))
        return F.pil_to_tensor(view), self.folder.labels[index]


def _collate(items: list[tuple[torch.Tensor, int] | UserError]) -> Batch | UserError:
    samples = []
    for item in items:
        if isinstance(item, UserError):
            return item
        samples.append(item)
    return torch.stack([image for image, _ in samples]), torch.tensor([label for _, label in samples])


def image_batches(
    folder: ImageFolder,
    order: Sequence[int],
    *,
    view: View,
    batch_size: int,
    seed: int,
    epoch: int = 0,
    num_workers: int = 0,
) -> Iterator[Batch]:
    """Yield views of the images in that order: uint8 RGB (N, 3, S, S) and int64 labels (N,); the last may be smaller.

    The same views come whatever the number of workers and the batch size.

    Raises:
        UserError: an image cannot be read; it is named.
    """
    loader: DataLoader[tuple[torch.Tensor, int] | UserError] = DataLoader(
        _Views(folder, view, seed, epoch),
        sampler=order,
        batch_size=batch_size,
        collate_fn=_collate,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield batch
