"""PASCAL VOC's images as voc-svm has them: which classes each shows, and which images and classes are left out.

N: images, K: classes. An image's presence of a class is PRESENT, ABSENT, or DIFFICULT where all of its objects of the
class are. What becomes of a difficult one is in `svm_class`.
"""

import hashlib
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
from msgspec import structs

from benchmarks.classification.readable import unreadable
from benchmarks.classification.svm_protocol import SvmProtocol
from benchmarks.context import RunContext
from benchmarks.detection.records import DetectionData, DetectionSet
from benchmarks.detection.voc_data import UNREADABLE, read_voc
from benchmarks.result import DataIdentity, SplitIdentity
from mocobench.runtime.errors import UserError
from mocobench.runtime.images import ImageFolder
from mocobench.runtime.progress import say

PRESENT, DIFFICULT, ABSENT = 1, 0, -1


def read_images(data: Path, protocol: SvmProtocol, context: RunContext) -> DetectionData:
    """The protocol's splits.

    Raises:
        UserError: bad data; see `read_voc`.
    """
    return read_voc(
        data,
        train_splits=protocol.train_splits,
        test_splits=protocol.test_splits,
        classes=protocol.classes,
        on_bad_annotation=context.on_bad_annotation,
        on_bad_image=context.on_bad_image,
    )


def identify_images(data: Path, protocol: SvmProtocol, context: RunContext) -> DataIdentity:
    """The identity of the protocol's splits without images that cannot be read, if `context` skips them.

    Raises:
        UserError: bad data; see `read_voc`.
    """
    sets = read_images(data, protocol, context)
    train, test = (unreadable(as_folder(data, images), context) for images in (sets.train, sets.test))
    return without_images(sets, train=train, test=test).identity


def as_folder(data: Path, images: DetectionSet) -> ImageFolder:
    """The images, as if of a single class."""
    paths = tuple(image.path for image in images.images)
    return ImageFolder(data, paths, labels=(0,) * len(paths), classes=("any",))


def without_images(sets: DetectionData, *, train: Collection[int], test: Collection[int]) -> DetectionData:
    """Without the images at these positions, which cannot be read; the identity names them.

    The hash of a list that lacks some is that of the whole list's hash and their names.
    """
    identity, kept = sets.identity, {"train": sets.train, "test": sets.test}
    for split, positions in (("train", frozenset(train)), ("test", frozenset(test))):
        if not positions:
            continue
        images = kept[split].images
        lacking = [images[at].path.name + UNREADABLE for at in sorted(positions)]
        rest = tuple(image for at, image in enumerate(images) if at not in positions)
        listed = "\n".join([identity.splits[split].list_sha256, *lacking])
        found = SplitIdentity(
            images=len(rest),
            objects=sum(len(image.boxes) for image in rest),
            list_sha256=hashlib.sha256(listed.encode()).hexdigest(),
        )
        kept[split] = replace(kept[split], images=rest)
        splits, skipped = {**identity.splits, split: found}, (*identity.skipped, *lacking)
        identity = structs.replace(identity, splits=splits, skipped=skipped)
    return replace(sets, train=kept["train"], test=kept["test"], identity=identity)


def say_skipped(sets: DetectionData) -> None:
    """How many images cannot be read, if any, and the first of them."""
    lacking = [name for name in sets.identity.skipped if name.endswith(UNREADABLE)]
    if lacking:
        first = lacking[0].removesuffix(UNREADABLE)
        say(f"images that cannot be read: {len(lacking)}, {first} first; they are left out")


def presence(images: DetectionSet) -> np.ndarray:
    """Of every class in every image (N, K)."""
    found = np.full((len(images.images), len(images.classes)), ABSENT)
    for row, image in zip(found, images.images, strict=True):
        row[image.labels[image.difficult]] = DIFFICULT
        row[image.labels[~image.difficult]] = PRESENT
    return found


def measurable_classes(sets: DetectionData, protocol: SvmProtocol) -> list[int]:
    """Labels of the classes with positive and other training images for each fold, and positive ones for the test.

    Raises:
        UserError: there is none.
    """
    trained, tested = presence(sets.train), presence(sets.test)
    num_present = (trained == PRESENT).sum(axis=0)
    scarcest = np.minimum(num_present, len(trained) - num_present)
    chosen: list[int] = np.flatnonzero((scarcest >= protocol.folds) & (tested == PRESENT).any(axis=0)).tolist()
    if not chosen:
        raise UserError(
            f"voc-svm: expected a class with {protocol.folds} positive and as many negative training images and a "
            "positive one to test on, found none; add images or lower --folds"
        )
    return chosen
