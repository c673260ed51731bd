"""Labelled images in, batches of views out: what a view shows depends on (seed, epoch, image) alone."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from msgspec import structs
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms import functional as F

from benchmarks.classification.torchvision_data import SETS, LabelledImages, read_torchvision
from benchmarks.result import DataIdentity, SplitIdentity
from mocobench.runtime.errors import UserError
from mocobench.runtime.images import ImageFolder, list_image_folder
from mocobench.runtime.progress import say
from mocobench.runtime.seeds import derive_seed
from mocobench.runtime.workers import end_with_the_parent, share

Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class LabelledSplits:
    """Training and validation images below `data`, whose labels index one tuple of classes, the training images'."""

    data: Path
    train: LabelledImages
    val: LabelledImages
    identity: DataIdentity

    def without(self, *, train: Collection[int] = (), val: Collection[int] = ()) -> "LabelledSplits":
        """Without the images at these positions, which cannot be read: they are said, and named in the identity.

        Raises:
            UserError: a class has no image to train on any more.
        """
        left_out = (*(f"train/{self.train.name(at)}" for at in train), *(f"val/{self.val.name(at)}" for at in val))
        if not left_out:
            return self
        say(f"images that cannot be read: {len(left_out)}, {left_out[0]} first; they are left out")
        skipped = (*self.identity.skipped, *(f"{name}: cannot be read" for name in left_out))
        rest = leave_out(self.train, train), leave_out(self.val, val)
        _require_images(rest[0], self.data)
        identity = structs.replace(self.identity, splits=_identities(*rest), skipped=skipped)
        return LabelledSplits(self.data, *rest, identity)


def leave_out(images: LabelledImages, positions: Collection[int]) -> LabelledImages:
    """The images but for those at these positions."""
    left_out = frozenset(positions)
    return images.select([at for at in range(len(images)) if at not in left_out]) if left_out else images


def read_splits(data: Path) -> LabelledSplits:
    """List `data/train/<class>/` and `data/val/<class>/`, or the data set of torchvision that the folder is.

    A class is known by its name. Classes without validation images are said.

    Raises:
        UserError: `train` or `val` is missing or holds no images, there is one class only, validation classes are not
            among the training classes, a class has no image to train on, or torchvision cannot read its data set.
    """
    if not data.is_dir():
        raise UserError(f"--data {data}: expected a folder that holds train/ and val/, found no such folder")
    train, val = read_torchvision(data) if data.name in SETS else _read_folders(data)
    if len(train.classes) < 2:
        raise UserError(f"{data / 'train'}: expected at least two class folders, found one, {train.classes[0]}")
    _require_images(train, data)
    without = _without_images(val)
    if without:
        say(f"{len(without)} of {len(train.classes)} classes have no validation images: {_some(without)}")
    identity = DataIdentity(data.resolve().name, len(train.classes), _identities(train, val))
    return LabelledSplits(data, train, val, identity)


def _identities(train: LabelledImages, val: LabelledImages) -> dict[str, SplitIdentity]:
    return {
        name: SplitIdentity(images=len(images), list_sha256=images.list_sha256())
        for name, images in (("train", train), ("val", val))
    }


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
class SquashedView:
    """The shorter side resized to `resize` pixels, then both sides to `size`: nothing is cut off, shapes change."""

    resize: int
    size: int

    def __call__(self, image: Image.Image, seed: int) -> Image.Image:
        """The same for every seed."""
        return F.resize(F.resize(image, self.resize), [self.size, self.size])


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


StillView = CenterView | SquashedView
View = StillView | RandomView


# What the error of an image ends with where none is left out: images that are read in every epoch have been looked at.
REMEDIES = {
    "stop": "or leave such images out with --on-bad-image skip",
    "skip": "which could be read when the run began",
}
Sample = tuple[torch.Tensor, int]  # a view and the position of its image


@dataclass(frozen=True)
class _Views(Dataset[Sample | UserError]):
    images: LabelledImages
    view: View
    seed: int
    epoch: int
    remedy: str | None  # None: an image that cannot be read is left out

    def __getitem__(self, index: int) -> Sample | UserError:
        try:
            image = self.images.read(index)
        except UserError as error:
            # As a value: raised in a worker process, its one line would come back buried in a traceback.
            return UserError(f"{error}, {self.remedy}")
        return F.pil_to_tensor(self.view(image, derive_seed(self.seed, "view", self.epoch, index))), index

    def collate(self, items: list[Sample | UserError]) -> Batch | UserError:
        """Views and positions, which may be none, or the first error where none is left out."""
        samples = [item for item in items if not isinstance(item, UserError)]
        if len(samples) < len(items) and self.remedy is not None:
            return next(item for item in items if isinstance(item, UserError))
        pixels = torch.empty(len(samples), 3, self.view.size, self.view.size, dtype=torch.uint8)
        for place, (view, _) in zip(pixels, samples, strict=True):
            place.copy_(view)
        try:
            return share(pixels), share(torch.tensor([index for _, index in samples], dtype=torch.int64))
        except UserError as error:
            return error


def image_batches(
    images: LabelledImages,
    order: Sequence[int],
    *,
    view: View,
    batch_size: int,
    seed: int,
    epoch: int = 0,
    num_workers: int = 0,
    on_bad_image: str = "stop",
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Yield views of the images in that order: uint8 RGB (N, 3, S, S) and int64 labels (N,); the last may be smaller.

    The same views come whatever the number of workers and the batch size. None is left out: where `on_bad_image` is
    `skip`, they are images that have been looked at. `pin_memory` is for a run on CUDA, and starts it.

    Raises:
        UserError: an image cannot be read; it is named.
    """
    batches = [list(order[start : start + batch_size]) for start in range(0, len(order), batch_size)]
    yield from listed_batches(
        images,
        batches,
        view=view,
        seed=seed,
        epoch=epoch,
        num_workers=num_workers,
        on_bad_image=on_bad_image,
        pin_memory=pin_memory,
    )


def listed_batches(
    images: LabelledImages,
    batches: Sequence[list[int]],
    *,
    view: View,
    seed: int,
    epoch: int = 0,
    num_workers: int = 0,
    on_bad_image: str = "stop",
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """As `image_batches`, with the positions in each batch, of which any may be empty.

    Raises:
        UserError: an image cannot be read; it is named.
    """
    views, labels = _Views(images, view, seed, epoch, REMEDIES[on_bad_image]), torch.tensor(images.labels)
    for pixels, positions in _load(views, batches, num_workers, pin_memory=pin_memory):
        yield pixels, labels[positions]


def batches_in_one_pass(
    images: LabelledImages,
    batches: Sequence[list[int]],
    *,
    view: View,
    seed: int,
    num_workers: int,
    on_bad_image: str,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """As `listed_batches`, with positions (N,) in place of labels; `skip` leaves out images that cannot be read.

    Raises:
        UserError: an image cannot be read, and `on_bad_image` is `stop`; it is named.
    """
    remedy = REMEDIES["stop"] if on_bad_image == "stop" else None
    yield from _load(_Views(images, view, seed, 0, remedy), batches, num_workers, pin_memory=pin_memory)


def _load(views: _Views, batches: Sequence[list[int]], num_workers: int, *, pin_memory: bool) -> Iterator[Batch]:
    loader: DataLoader[Sample | UserError] = DataLoader(
        views,
        batch_sampler=batches,
        collate_fn=views.collate,
        num_workers=num_workers,
        worker_init_fn=end_with_the_parent,
        pin_memory=pin_memory,
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield batch
