"""PASCAL VOC folders -> images with boxes, checked; the XML's 1-based corners become 0-based."""

import hashlib
import math
import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from benchmarks.detection.annotations import BadAnnotations, check_size, read_upright_size, split_identity
from benchmarks.detection.checks import check_sets
from benchmarks.detection.records import DetectionData, DetectionSet, LabelledImage
from benchmarks.detection.voc_files import VocFiles, list_voc_split
from benchmarks.result import DataIdentity
from mocobench.runtime.errors import UserError
from mocobench.runtime.progress import progress

# The order in which Detectron2 numbers them.
VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
UNREADABLE = ": cannot be read"  # after the name of an image that is left out
CORNERS = ("xmin", "ymin", "xmax", "ymax")
ENCODING = re.compile(rb"""<\?xml[^>]*\bencoding\s*=\s*["']([\w.-]+)""")


@dataclass(frozen=True)
class VocObject:
    """One `object` element: its number in the file from 1, and its 1-based corners as written."""

    number: int
    name: str
    corners: tuple[float, float, float, float]
    difficult: bool

    @property
    def place(self) -> str:
        return f"object {self.number} ({self.name})"


@dataclass(frozen=True)
class VocAnnotation:
    """One XML file."""

    files: VocFiles
    sha256: bytes
    width: int
    height: int
    objects: tuple[VocObject, ...]


def read_voc(
    data: Path,
    *,
    train_splits: tuple[str, ...],
    test_splits: tuple[str, ...],
    classes: str,
    on_bad_annotation: str = "stop",
    on_bad_image: str = "stop",
) -> DetectionData:
    """Read the training and test splits of a VOC data set and check every file before any training.

    A missing `difficult` element means not difficult. Boxes are (xmin - 1, ymin - 1, xmax, ymax), as in Detectron2.

    Args:
        data: a VOCdevkit or one year folder; for the names of splits see `list_voc_split`.
        classes: `voc` for the 20 of PASCAL VOC, `found` for the sorted names of the training objects.
        on_bad_annotation: what an empty box, a box outside its image, an unknown class or an unreadable object
            does: `stop` raises, `skip` leaves the object out and lists it in the identity. The same for a test
            image among the training images and a class that training never sees: see `check_sets`.
        on_bad_image: what a file without an image's header does, the same.

    Raises:
        UserError: the above, a missing folder or file, broken XML, a size that is not the image's, an image listed
            twice, or nothing to train or to test on. The file is named and, within it, the object.
    """
    bad, skip_images = BadAnnotations(on_bad_annotation), on_bad_image == "skip"
    train = _read_annotations(data, train_splits, bad, skip_images=skip_images)
    names = VOC_CLASSES if classes == "voc" else _found_classes(train)
    known_from = "of the 20 of PASCAL VOC" if classes == "voc" else "of the classes in the training splits"
    train_set = _label(train, names, known_from, bad)
    test = _read_annotations(data, test_splits, bad, skip_images=skip_images)
    test_set = _label(test, names, known_from, bad)
    checked = check_sets(train_set, test_set, source=data, bad=bad)
    identity = DataIdentity(
        name=data.resolve().name,
        classes=len(names),
        splits={
            "train": split_identity(checked.train, (annotation.sha256 for annotation in train)),
            "test": split_identity(checked.test, (annotation.sha256 for annotation in test)),
        },
        skipped=tuple(bad.skipped),
    )
    return DetectionData(checked.train, checked.test, identity, checked.notes)


def _read_annotations(
    data: Path, splits: tuple[str, ...], bad: BadAnnotations, *, skip_images: bool
) -> list[VocAnnotation]:
    files: dict[str, VocFiles] = {}
    for split in splits:
        for entry in list_voc_split(data, split):
            if entry.image_id in files:
                raise UserError(
                    f"{data}: expected the splits {', '.join(splits)} to share no image, found {entry.image_id} twice"
                )
            files[entry.image_id] = entry
    annotations = []
    for entry in progress(files.values(), label="reading VOC", unit="image"):
        if skip_images and not _is_image(entry.image):
            bad.skipped.append(entry.image.name + UNREADABLE)
        else:
            annotations.append(parse_annotation(entry, bad))
    return annotations


def _is_image(path: Path) -> bool:
    try:
        read_upright_size(path)
    except UserError:
        return False
    return True


def _found_classes(annotations: list[VocAnnotation]) -> tuple[str, ...]:
    return tuple(sorted({found.name for annotation in annotations for found in annotation.objects}))


def parse_annotation(files: VocFiles, bad: BadAnnotations) -> VocAnnotation:
    """Parse one XML file and check it against its image.

    Raises:
        UserError: broken XML, no `size`, another size than the image's, or a bad object when `bad` stops.
    """
    content = files.annotation.read_bytes()
    try:
        root = _parse_xml(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the last two: it cannot be decoded as declared
        raise UserError(f"{files.annotation}: expected XML, found {error}; mend or remove it") from error
    sides = [_number(root, f"size/{side}") for side in ("width", "height")]
    if not all(side is not None and side >= 1 and side == int(side) for side in sides):
        raise UserError(f"{files.annotation}: expected size with width and height in pixels, found none; add it")
    width, height = (int(side) for side in sides if side is not None)
    check_size(files.image, annotated=(width, height), annotation=files.annotation)
    objects = []
    for number, element in enumerate(root.findall("object"), start=1):
        found = _parse_object(number, element)
        place = found.place if found else f"object {number}"
        fault = _box_fault(found.corners, width, height) if found else "expected a name and a box of four numbers"
        if fault:
            bad.report(files.annotation, place, fault)
        elif found:
            objects.append(found)
    return VocAnnotation(files, hashlib.sha256(content).digest(), width, height, tuple(objects))


def _parse_xml(content: bytes) -> ElementTree.Element:
    """The root element; the parser itself knows none of the encodings of several bytes a character but Unicode's."""
    declared = ENCODING.match(content)
    try:
        return ElementTree.fromstring(content)
    except ValueError:
        if declared is None:
            raise
        return ElementTree.fromstring(content.decode(declared[1].decode()))


def _parse_object(number: int, element: ElementTree.Element) -> VocObject | None:
    """The object, or None when its name or one of its corners is missing or no number."""
    name = (element.findtext("name") or "").strip()
    corners = [_number(element, f"bndbox/{corner}") for corner in CORNERS]
    x1, y1, x2, y2 = corners
    if not name or x1 is None or y1 is None or x2 is None or y2 is None:
        return None
    difficult = (element.findtext("difficult") or "0").strip() not in ("0", "")
    return VocObject(number, name, (x1, y1, x2, y2), difficult)


def _number(element: ElementTree.Element, path: str) -> float | None:
    try:
        value = float(element.findtext(path) or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _box_fault(corners: tuple[float, float, float, float], width: int, height: int) -> str | None:
    """What is wrong with a box in VOC's pixel coordinates, which run from 1 to the width and height."""
    x1, y1, x2, y2 = corners
    shown = "box (" + ", ".join(f"{corner:g}" for corner in corners) + ")"
    if x2 == x1 or y2 == y1:
        return f"{shown} is empty"
    if x2 < x1 or y2 < y1:
        return f"{shown} is inverted, expected xmin < xmax and ymin < ymax"
    if x1 < 1 or y1 < 1 or x2 > width or y2 > height:
        return f"{shown} reaches outside its image, expected x in 1..{width} and y in 1..{height}"
    return None


def _label(
    annotations: list[VocAnnotation], classes: tuple[str, ...], known_from: str, bad: BadAnnotations
) -> DetectionSet:
    """Number the class names; a name that is not among `classes` is a bad annotation."""
    label_of = {name: label for label, name in enumerate(classes)}
    images = []
    for annotation in annotations:
        known = []
        for found in annotation.objects:
            if found.name in label_of:
                known.append(found)
            else:
                bad.report(annotation.files.annotation, found.place, f"class {found.name} is none {known_from}")
        corners = np.array([found.corners for found in known], dtype=np.float64).reshape(-1, 4)
        images.append(
            LabelledImage(
                image_id=annotation.files.image_id,
                path=annotation.files.image,
                width=annotation.width,
                height=annotation.height,
                boxes=(corners - (1, 1, 0, 0)).astype(np.float32),
                labels=np.array([label_of[found.name] for found in known], dtype=np.int64),
                difficult=np.array([found.difficult for found in known], dtype=bool),
                crowd=np.zeros(len(known), dtype=bool),
            )
        )
    return DetectionSet(tuple(images), classes)
