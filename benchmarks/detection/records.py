"""What detection data and detections are, between data sets, engines and metrics.

Boxes are (x1, y1, x2, y2) in pixels of the original image, 0-based, float32, x2 and y2 exclusive of no pixel:
the box of a whole W x H image is (0, 0, W, H). COCO's boxes may reach over the border of their image. Labels index
`DetectionSet.classes`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.result import DataIdentity


@dataclass(frozen=True)
class LabelledImage:
    """One image and its objects.

    `boxes` (N, 4) float32, `labels` (N,) int64, `difficult` and `crowd` (N,) bool. `segmentations` has one entry
    per object, a list of polygons (each a flat list x, y, x, y, ...) or a COCO RLE dict; None without masks.
    """

    image_id: str | int
    path: Path
    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray
    crowd: np.ndarray
    segmentations: tuple[Any, ...] | None = None


@dataclass(frozen=True)
class DetectionSet:
    """The images of one split (or of several splits joined) and the class names in label order."""

    images: tuple[LabelledImage, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class DetectionData:
    """Training and test data of one run, the identity of both, and lines on what is worth knowing about them.

    `ground_truth` is the test set as COCO's own dictionary, for COCO's metric; None for VOC.
    """

    train: DetectionSet
    test: DetectionSet
    identity: DataIdentity
    notes: tuple[str, ...] = ()
    ground_truth: dict[str, Any] | None = None


@dataclass(frozen=True)
class Detections:
    """What a detector found in one image, best score first.

    `boxes` (N, 4) float32 as above, `scores` (N,) in [0, 1], `labels` (N,) int64; `masks` one COCO RLE dict
    (counts as bytes) per detection at the original image's size, or None for a detector without masks.
    """

    image_id: str | int
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: tuple[dict[str, Any], ...] | None = None
