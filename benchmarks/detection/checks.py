"""What training and test images must be, taken together, before a run may start."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.detection.annotations import BadAnnotations
from benchmarks.detection.records import DetectionSet, LabelledImage
from benchmarks.detection.same_files import same_files
from mocobench.runtime.errors import UserError

NUM_NAMED = 3  # of many alike, so many are named in a note


@dataclass(frozen=True)
class CheckedSets:
    """Both sets without what was skipped, the labels left out of the test set, and what is worth knowing."""

    train: DetectionSet
    test: DetectionSet
    unseen: frozenset[int]
    notes: tuple[str, ...]


def check_sets(train: DetectionSet, test: DetectionSet, *, source: Path, bad: BadAnnotations) -> CheckedSets:
    """Check that no test image is trained on, that every class tested was trained on, and that there are objects.

    A training image with the content of a test image, and a class that only the test set shows, stop the run, or
    are skipped: the image in training, the objects of the class in testing. Equal images within a set are noted.
    Crowds are neither trained on nor counted; difficult objects are trained on and not counted.

    Raises:
        UserError: the above with `bad` set to stop, or nothing to train on, or nothing to find.
    """
    images = (*train.images, *test.images)
    groups = same_files([image.path for image in images])
    notes = [
        *_copies(images, [[i for i in group if i < len(train.images)] for group in groups], "training"),
        *_copies(images, [[i for i in group if i >= len(train.images)] for group in groups], "test"),
    ]
    train = _without_test_images(train, images, groups, bad)
    if not any((~image.crowd).any() for image in train.images):
        raise UserError(f"{source}: expected at least one object to train on in the training splits, found none")
    unseen = _unseen_classes(train, test, source, bad)
    test = replace(test, images=tuple(_without_labels(image, unseen) for image in test.images))
    if not any((~image.crowd & ~image.difficult).any() for image in test.images):
        raise UserError(f"{source}: expected at least one object to find in the test splits, found none that counts")
    return CheckedSets(train, test, unseen, tuple(notes))


def _copies(images: Sequence[LabelledImage], groups: list[list[int]], kind: str) -> list[str]:
    """A line on the images of one set that are copies of others, or none."""
    pairs = [f"{images[i].path.name} = {images[group[0]].path.name}" for group in groups for i in group[1:]]
    if not pairs:
        return []
    more = f" and {len(pairs) - NUM_NAMED} more" if len(pairs) > NUM_NAMED else ""
    return [f"{kind} images with the content of another: {', '.join(pairs[:NUM_NAMED])}{more}"]


def _without_test_images(
    train: DetectionSet, images: Sequence[LabelledImage], groups: list[list[int]], bad: BadAnnotations
) -> DetectionSet:
    """The training set without images that are test images too."""
    count = len(train.images)
    copy_of = {i: group[-1] for group in groups if group[-1] >= count for i in group if i < count}
    for i, test_image in sorted(copy_of.items()):
        path = images[test_image].path
        bad.report(
            images[i].path,
            "in training",
            f"same content as the test image {path.parent.name}/{path.name}",
            remedy=f"remove one of the two ({len(copy_of)} such), or leave such images out of training",
        )
    return replace(train, images=tuple(image for i, image in enumerate(train.images) if i not in copy_of))


def count_objects(detection_set: DetectionSet) -> np.ndarray:
    """Objects of each class that are not crowds, (classes,)."""
    counts = np.zeros(len(detection_set.classes), dtype=np.int64)
    for image in detection_set.images:
        np.add.at(counts, image.labels[~image.crowd], 1)
    return counts


def _unseen_classes(train: DetectionSet, test: DetectionSet, source: Path, bad: BadAnnotations) -> frozenset[int]:
    """Labels that have objects in the test set and none to train on."""
    in_test = count_objects(test)
    unseen = np.flatnonzero((in_test > 0) & (count_objects(train) == 0))
    if len(unseen):
        named = ", ".join(f"{test.classes[label]} ({in_test[label]})" for label in unseen)
        fault = f"objects in the test splits, none in the training splits: {named}"
        bad.report(source, "classes", fault, remedy="choose other splits, or leave these objects out of testing")
    return frozenset(unseen.tolist())


def _without_labels(image: LabelledImage, labels: frozenset[int]) -> LabelledImage:
    """The image without its objects of some classes."""
    kept = ~np.isin(image.labels, sorted(labels))
    if kept.all():
        return image
    segmentations = image.segmentations
    if segmentations is not None:
        segmentations = tuple(one for one, keep in zip(segmentations, kept, strict=True) if keep)
    return replace(
        image,
        boxes=image.boxes[kept],
        labels=image.labels[kept],
        difficult=image.difficult[kept],
        crowd=image.crowd[kept],
        segmentations=segmentations,
    )
