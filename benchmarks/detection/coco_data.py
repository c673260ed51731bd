"""COCO instances -> images with boxes and segmentations, checked, with the ground truth that pycocotools scores by."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.detection.annotations import BadAnnotations, check_size, split_identity
from benchmarks.detection.checks import check_sets
from benchmarks.detection.coco_annotation import find_fault, kept_segmentation
from benchmarks.detection.records import DetectionData, DetectionSet, LabelledImage
from benchmarks.result import DataIdentity
from mocobench.runtime.errors import UserError
from mocobench.runtime.progress import progress

TOP_LEVEL_LISTS = ("images", "annotations", "categories")


@dataclass(frozen=True)
class Instances:
    """One instances file: images and sound annotations by image id, category names by id in rising order."""

    path: Path
    sha256: bytes
    categories: dict[int, str]
    images: dict[int, dict[str, Any]]
    annotations: dict[int, list[dict[str, Any]]]


def read_coco(
    data: Path,
    *,
    train_splits: tuple[str, ...],
    test_splits: tuple[str, ...],
    masks: bool,
    on_bad_annotation: str = "stop",
) -> DetectionData:
    """Read `annotations/instances_{split}.json` and the images in `{split}/`, and check all of it.

    Label i is the i-th of the category ids in rising order. The ground truth is the test split's, without what was
    skipped.

    Boxes stay as filed, also where they reach over the border of their image: they are clipped once it is resized.
    A missing `iscrowd` means 0. Without `masks`, segmentations are neither read nor checked.

    Args:
        on_bad_annotation: what an unknown category or image, a repeated id, an empty box, a missing key or a broken
            segmentation does: `stop` raises, `skip` leaves the object out (of a broken polygon among sound ones,
            only that polygon) and lists it in the identity. The same for a test image among the training images
            and a class that training never sees: see `check_sets`.

    Raises:
        UserError: the above, a missing file or image, an image of another size, broken JSON, categories that differ
            between the splits, no segmentations where `masks` asks for them, or nothing to train or to test on. The
            file is named and, within it, the annotation.
    """
    bad = BadAnnotations(on_bad_annotation)
    train = [_read_instances(data, split, masks, bad) for split in train_splits]
    test = [_read_instances(data, split, masks, bad) for split in test_splits]
    categories = train[0].categories
    for other in (*train, *test):
        if other.categories != categories:
            raise UserError(f"{other.path}: expected the same categories as {train[0].path.name}, found others")
    train_set = _label(data, train, train_splits, masks)
    test_set = _label(data, test, test_splits, masks)
    checked = check_sets(train_set, test_set, source=data, bad=bad)
    identity = DataIdentity(
        name=data.resolve().name,
        classes=len(categories),
        splits={
            "train": split_identity(checked.train, (instances.sha256 for instances in train)),
            "test": split_identity(checked.test, (instances.sha256 for instances in test)),
        },
        skipped=tuple(bad.skipped),
    )
    truth = _ground_truth(test, without=checked.unseen)
    return DetectionData(checked.train, checked.test, identity, checked.notes, truth)


def _read_instances(data: Path, split: str, masks: bool, bad: BadAnnotations) -> Instances:
    path = data / "annotations" / f"instances_{split}.json"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: expected COCO instances in JSON, found {error.strerror}") from error
    raw = _parse(path, content)
    categories = _by_id(path, raw["categories"], "category", {"id": int, "name": str})
    keys = {"id": int, "file_name": str, "width": int, "height": int}
    # In the order of their ids, as Detectron2 lists them: a sampler's order means the same images in both.
    images = dict(sorted(_by_id(path, raw["images"], "image", keys).items()))
    if not images:
        raise UserError(f"{path}: expected at least one image, found none")
    if (
        masks
        and raw["annotations"]
        and not any(isinstance(a, dict) and a.get("segmentation") for a in raw["annotations"])
    ):
        raise UserError(
            f"{path}: expected segmentations to train and score masks by, found none in {len(raw['annotations'])} "
            "annotations; add them or choose a protocol without masks"
        )
    annotations: dict[int, list[dict[str, Any]]] = {image_id: [] for image_id in images}
    names = {category_id: categories[category_id]["name"] for category_id in sorted(categories)}
    seen: set[int] = set()
    for position, annotation in enumerate(raw["annotations"]):
        place, fault = find_fault(annotation, position, names, images)
        if not fault and annotation["id"] in seen:
            fault = "its id was used before"
        if fault:
            bad.report(path, place, fault)
            continue
        seen.add(annotation["id"])
        segmentation = kept_segmentation(annotation, images, path, place, bad) if masks else None
        if segmentation or not masks:
            annotations[annotation["image_id"]].append({**annotation, "segmentation": segmentation})
    return Instances(path, hashlib.sha256(content).digest(), names, images, annotations)


def _parse(path: Path, content: bytes) -> dict[str, Any]:
    """The JSON object with its three lists."""
    try:
        raw = json.loads(content)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: expected COCO instances in JSON, found {error}; download it again") from error
    found = ", ".join(sorted(raw)) or "no keys" if isinstance(raw, dict) else f"a {type(raw).__name__}"
    if not isinstance(raw, dict) or not all(isinstance(raw.get(name), list) for name in TOP_LEVEL_LISTS):
        raise UserError(f"{path}: expected a JSON object with the lists {', '.join(TOP_LEVEL_LISTS)}, found {found}")
    return raw


def _by_id(path: Path, entries: list[Any], kind: str, keys: dict[str, type]) -> dict[int, dict[str, Any]]:
    """Images or categories by id; each must have its keys and an id of its own."""
    found: dict[int, dict[str, Any]] = {}
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict) or not all(type(entry.get(key)) is kept for key, kept in keys.items()):
            raise UserError(f"{path}: expected {', '.join(keys)} in every {kind}, found {kind} {position} without")
        if entry["id"] in found:
            raise UserError(f"{path}: expected every {kind} id once, found {entry['id']} twice")
        found[entry["id"]] = entry
    return found


def _label(data: Path, files: list[Instances], splits: tuple[str, ...], masks: bool) -> DetectionSet:
    """Images of all splits with labels in the order of the category ids; image files are checked."""
    label_of = {category_id: label for label, category_id in enumerate(files[0].categories)}
    images: dict[int, LabelledImage] = {}
    for instances, split in zip(files, splits, strict=True):
        for image_id, entry in progress(instances.images.items(), label=f"checking {split}", unit="image"):
            if image_id in images:
                raise UserError(f"{instances.path}: expected image ids of its own, found {image_id} of another split")
            image, place = data / split / entry["file_name"], f" image {image_id}"
            size = (entry["width"], entry["height"])
            check_size(image, annotated=size, annotation=instances.path, place=place)
            images[image_id] = _labelled_image(image, entry, instances.annotations[image_id], label_of, masks)
    return DetectionSet(tuple(images.values()), tuple(files[0].categories.values()))


def _labelled_image(
    path: Path, entry: dict[str, Any], annotations: list[dict[str, Any]], label_of: dict[int, int], masks: bool
) -> LabelledImage:
    # Summed in float32, as Detectron2 does.
    boxes = np.array([one["bbox"] for one in annotations], dtype=np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return LabelledImage(
        image_id=entry["id"],
        path=path,
        width=entry["width"],
        height=entry["height"],
        boxes=boxes,
        labels=np.array([label_of[one["category_id"]] for one in annotations], dtype=np.int64),
        difficult=np.zeros(len(annotations), dtype=bool),
        crowd=np.array([one.get("iscrowd", 0) for one in annotations], dtype=bool),
        segmentations=tuple(one["segmentation"] for one in annotations) if masks else None,
    )


def _ground_truth(files: list[Instances], *, without: frozenset[int]) -> dict[str, Any]:
    """COCO's dictionary of the test images `without` objects of some labels.

    Annotation ids run from 1: pycocotools takes an object 0 for no match.
    """
    entries = [entry for instances in files for entry in instances.images.values()]
    left_out = {category_id for label, category_id in enumerate(files[0].categories) if label in without}
    all_annotations = (one for instances in files for entries in instances.annotations.values() for one in entries)
    annotations = [one for one in all_annotations if one["category_id"] not in left_out]
    keys = ("image_id", "category_id", "bbox", "area", "segmentation")
    return {
        "images": [{key: entry[key] for key in ("id", "width", "height")} for entry in entries],
        "categories": [{"id": number, "name": name} for number, name in files[0].categories.items()],
        "annotations": [
            {"id": number, "iscrowd": int(one.get("iscrowd", 0)), **{key: one[key] for key in keys}}
            for number, one in enumerate(annotations, start=1)
        ],
    }
