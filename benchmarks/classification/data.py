"""Labelled images in, batches of views out: what a view shows depends on (seed, epoch, image) alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms import functional as F

from benchmarks.classification.readable import readable
from benchmarks.classification.torchvision_data import SETS, LabelledImages, read_torchvision
from benchmarks.result import DataIdentity, SplitIdentity
from mocobench.runtime.errors import UserError
from mocobench.runtime.images import ImageFolder, list_image_folder
from mocobench.runtime.progress import say
from mocobench.runtime.seeds import derive_seed

Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class LabelledSplits:
    """Training and validation images whose labels index one tuple of classes, the training images'."""

    train: LabelledImages
    val: LabelledImages
    identity: DataIdentity


def read_splits(data: Path, *, on_bad_image: str = "stop", num_workers: int = 0) -> LabelledSplits:
    """List `data/train/<class>/` and `data/val/<class>/`, or the data set of torchvision that the folder is.

    A class is known by its name. With `on_bad_image` `skip` every image is read once, and those that cannot be are
    left out of the lists, counted, and named in `identity.skipped`. Classes without validation images are said.

    Raises:
        UserError: `train` or `val` is missing or holds no images, there is one class only, validation classes are not
            among the training classes, a class has no image to train on, or torchvision cannot read its data set.
    """
    if not data.is_dir():
        raise UserError(f"--data {data}: expected a folder that holds train/ and val/, found no such folder")
    train, val = read_torchvision(data) if data.name in SETS else _read_folders(data)
    if len(train.classes) < 2:
        raise UserError(f"{data / 'train'}: expected at least two class folders, found one, {train.classes[0]}")
    skipped: tuple[str, ...] = ()
    if on_bad_image == "skip":
        train, bad_train = readable(train, num_workers=num_workers)
        val, bad_val = readable(val, num_workers=num_workers)
        skipped = (*(f"train/{name}" for name in bad_train), *(f"val/{name}" for name in bad_val))
        if skipped:
            say(f"images that cannot be read: {len(skipped)}, {skipped[0]} first; they are left out")
        skipped = tuple(f"{name}: cannot be read" for name in skipped)
    _require_images(train, data)
    without = _without_images(val)
    if without:
        say(f"{len(without)} of {len(train.classes)} classes have no validation images: {_some(without)}")
    splits = {
        name: SplitIdentity(images=len(images), list_sha256=images.list_sha256())
        for name, images in (("train", train), ("val", val))
    }
    return LabelledSplits(train, val, DataIdentity(data.resolve().name, len(train.classes), splits, skipped))


def _read_folders(data: Path) -> tuple[ImageFolder, ImageFolder]:
    for split in ("train", "val"):
        if not (data / split).is_dir():
            found = ", ".join(sorted(entry.name for entry in data.iterdir())[:5]) or "nothing"
            raise UserError(
                f"--data {data}: expected {split}/ with one folder of images per class, or a data set of torchvision's "
                f"in a folder named {', '.join(SETS)}, found {found}"
            )
    train, val = list_image_folder(data / "train"), list_image_folder(data / "val")
    unknown = [name for name in val.classes if name not in train.classes]
    if unknown:
        raise UserError(
            f"{val.root}: expected classes that {train.root} has too, found {_some(unknown)}; rename or remove them"
        )
    return train, _relabel(val, train.classes)


def _relabel(folder: ImageFolder, classes: tuple[str, ...]) -> ImageFolder:
    label_of = [classes.index(name) for name in folder.classes]
    return replace(folder, labels=tuple(label_of[label] for label in folder.labels), classes=classes)


def _require_images(train: LabelledImages, data: Path) -> None:
    empty = _without_images(train)
    if empty:
        raise UserError(
            f"--data {data}: expected images to train on in every class, found none in {_some(empty)}; "
            "add some or remove the class"
        )


def _without_images(images: LabelledImages) -> list[str]:
    """The classes that have none."""
    there = set(images.labels)
    return [name for label, name in enumerate(images.classes) if label not in there]


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f", ... {len(names) - 5} more" if len(names) > 5 else "")


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
    images: LabelledImages
    view: View
    seed: int
    epoch: int

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int] | UserError:
        try:
            image = self.images.read(index)
        except UserError as error:
            # As a value: raised in a worker process, its one line would come back buried in a traceback.
            return UserError(f"{error}, or leave such images out with --on-bad-image skip")
        view = self.view(image, derive_seed(self.seed, "view", self.epoch, index))
        return F.pil_to_tensor(view), self.images.labels[index]

    def collate(self, items: list[tuple[torch.Tensor, int] | UserError]) -> Batch | UserError:
        """A batch, which may be empty, or the first error in it."""
        samples = []
        for item in items:
            if isinstance(item, UserError):
                return item
            samples.append(item)
        pixels = torch.empty(len(samples), 3, self.view.size, self.view.size, dtype=torch.uint8)
        for place, (view, _) in zip(pixels, samples, strict=True):
            place.copy_(view)
        return pixels, torch.tensor([label for _, label in samples], dtype=torch.int64)


def image_batches(
    images: LabelledImages,
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
    batches = [list(order[start : start + batch_size]) for start in range(0, len(order), batch_size)]
    return listed_batches(images, batches, view=view, seed=seed, epoch=epoch, num_workers=num_workers)


def listed_batches(
    images: LabelledImages,
    batches: Sequence[list[int]],
    *,
    view: View,
    seed: int,
    epoch: int = 0,
    num_workers: int = 0,
) -> Iterator[Batch]:
    """As `image_batches`, with the positions in each batch, of which any may be empty.

    Raises:
        UserError: an image cannot be read; it is named.
    """
    views = _Views(images, view, seed, epoch)
    loader: DataLoader[tuple[torch.Tensor, int] | UserError] = DataLoader(
        views,
        batch_sampler=batches,
        collate_fn=views.collate,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield batch
