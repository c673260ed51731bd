"""Average precision as Detectron2's PASCAL VOC evaluator computes it, for all IoU thresholds at once.

Letters: D detections and G objects of one class over all images, P pairs of a detection and an object of its
image, T IoU thresholds. Boxes are 1-based (xmin, ymin, xmax, ymax) with both ends inside, so a width is
xmax - xmin + 1. Average precisions are fractions in [0, 1].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.detection.precision_recall import CURVE_THRESHOLDS, Curve
from benchmarks.detection.records import Detections, DetectionSet

METRICS = ("voc-11-point", "voc-area")
IOU_THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))
ONE_BASED = np.array((1.0, 1.0, 0.0, 0.0))  # from records' corners to VOC's: xmin + 1, ymin + 1


@dataclass(frozen=True)
class ClassDetections:
    """Detections of one class over all images: `boxes` (D, 4) float64, `image` (D,) image indices, `scores` (D,)."""

    boxes: np.ndarray
    image: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class ClassObjects:
    """Objects of one class over all images: `boxes` (G, 4) float64, `difficult` (G,) bool, `image` (G,) indices."""

    boxes: np.ndarray
    difficult: np.ndarray
    image: np.ndarray

    @property
    def num_counted(self) -> int:
        return int((~self.difficult).sum())


@dataclass(frozen=True)
class VocScores:
    """`by_class` (classes, thresholds) in the order of the classes and of `IOU_THRESHOLDS`.

    `curves` has one of each class with objects that count and each of `CURVE_THRESHOLDS`, with a point per object
    found.
    """

    by_class: np.ndarray
    num_objects: np.ndarray  # (classes,), those that count
    curves: tuple[Curve, ...]

    @property
    def ap(self) -> float:
        return float(self.by_class.mean())

    @property
    def ap50(self) -> float:
        return float(self.by_class[:, IOU_THRESHOLDS.index(0.50)].mean())

    @property
    def ap75(self) -> float:
        return float(self.by_class[:, IOU_THRESHOLDS.index(0.75)].mean())


def evaluate_voc(test: DetectionSet, detections: Sequence[Detections], *, metric: str) -> VocScores:
    """Score detections against the objects of `test`, rounded as the files of VOC's protocol round them.

    A class without any object that counts has AP 0 and is part of the mean, as in Detectron2. (Its area metric gives
    NaN for such a class where there are detections of it, and for the mean with it.)
    """
    assert metric in METRICS, metric
    objects = _gather_objects(test)
    rows, curves = [], []
    for name, ranked, of_class in zip(test.classes, _rank_detections(test, detections), objects, strict=True):
        outcomes = judge(ranked, of_class, iou_thresholds=IOU_THRESHOLDS)
        rows.append([average_precision(outcome, metric=metric) for outcome in outcomes])
        if of_class.num_counted:
            curves += [_curve(name, ranked, outcomes[IOU_THRESHOLDS.index(iou)], iou) for iou in CURVE_THRESHOLDS]
    return VocScores(np.array(rows), np.array([of_class.num_counted for of_class in objects]), tuple(curves))


@dataclass(frozen=True)
class Outcome:
    """Which of D ranked detections are true, and the recall and precision (D,) with all up to and including each."""

    true: np.ndarray
    recall: np.ndarray
    precision: np.ndarray


def judge(ranked: ClassDetections, objects: ClassObjects, *, iou_thresholds: Sequence[float]) -> list[Outcome]:
    """Judge the detections of one class, ranked best first, at each IoU threshold; nothing without objects that count.

    Each detection looks at the one object of its image that it overlaps most: above the threshold it is true for
    the first detection of that object and false for later ones, and ignored where the object is difficult;
    otherwise it is false (VOC2007 devkit, section 4.4; Detectron2's evaluator).
    """
    if not objects.num_counted:
        nothing = np.zeros(0)
        return [Outcome(nothing.astype(bool), nothing, nothing)] * len(iou_thresholds)
    best_iou, best_object = best_overlaps(ranked.boxes, ranked.image, objects)
    outcomes = []
    for threshold in iou_thresholds:
        true, false = _true_and_false(best_iou > threshold, best_object, objects.difficult)
        num_true, num_false = np.cumsum(true), np.cumsum(false)
        precision = num_true / np.maximum(num_true + num_false, 1)
        outcomes.append(Outcome(true, num_true / objects.num_counted, precision))
    return outcomes


def _curve(class_name: str, ranked: ClassDetections, outcome: Outcome, iou: float) -> Curve:
    at = np.flatnonzero(outcome.true)
    return Curve(class_name, "box", iou, outcome.recall[at], outcome.precision[at], ranked.scores[at])


def best_overlaps(boxes: np.ndarray, image: np.ndarray, objects: ClassObjects) -> tuple[np.ndarray, np.ndarray]:
    """For each of D boxes the largest IoU with an object of its image and that object's index; -inf and -1 if none.

    Of several objects with the same IoU it is the first.
    """
    by_image = np.argsort(objects.image, kind="stable")
    sorted_images = objects.image[by_image]
    first = np.searchsorted(sorted_images, image, side="left")
    count = np.searchsorted(sorted_images, image, side="right") - first
    best_iou = np.full(len(boxes), -np.inf)
    best_object = np.full(len(boxes), -1)
    paired = np.flatnonzero(count)
    if not len(paired):
        return best_iou, best_object
    count, first = count[paired], first[paired]
    starts = np.cumsum(count) - count  # where each detection's run of pairs begins, (D',)
    candidate = by_image[np.arange(count.sum()) + np.repeat(first - starts, count)]  # (P,)
    iou = pairwise_iou(boxes[np.repeat(paired, count)], objects.boxes[candidate])
    best_iou[paired] = np.maximum.reduceat(iou, starts)
    is_best = iou == np.repeat(best_iou[paired], count)
    position = np.where(is_best, np.arange(len(iou)), len(iou))
    best_object[paired] = candidate[np.minimum.reduceat(position, starts)]
    return best_iou, best_object


def pairwise_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of boxes (P, 4) with boxes (P, 4), row by row, with both ends of a box inside it."""
    width = np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0]) + 1
    height = np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1]) + 1
    intersection = np.maximum(width, 0) * np.maximum(height, 0)
    return intersection / (_area(a) + _area(b) - intersection)


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)


def _true_and_false(
    overlaps: np.ndarray, best_object: np.ndarray, difficult: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which of D detections, best first, are true and which are false; those of difficult objects are neither."""
    hits = np.flatnonzero(overlaps)
    counted = hits[~difficult[best_object[hits]]]
    _, first_of_object = np.unique(best_object[counted], return_index=True)
    true = np.zeros(len(overlaps), dtype=bool)
    true[counted[first_of_object]] = True
    false = ~overlaps
    false[counted] = ~true[counted]
    return true, false


def average_precision(outcome: Outcome, *, metric: str) -> float:
    """VOC2007's mean of the best precision at 11 recalls, or the area below the precision envelope (VOC2010 on)."""
    # The best precision at this recall or a higher one; the closing 0 stands for recalls that are never reached.
    envelope = np.append(np.maximum.accumulate(outcome.precision[::-1])[::-1], 0.0)
    if metric == "voc-11-point":
        # Not 0.1 * k: the third is 0.30000000000000004, just above 3/10, and Detectron2's numbers depend on it.
        levels = np.arange(0.0, 1.1, 0.1)
        return float(envelope[np.searchsorted(outcome.recall, levels, side="left")].sum() / 11)
    return float((np.diff(outcome.recall, prepend=0.0) * envelope[:-1]).sum())


def _rank_detections(test: DetectionSet, detections: Sequence[Detections]) -> list[ClassDetections]:
    """Detections of each class by falling score: coordinates from 1 with one decimal, scores with three.

    Equal scores are common after that rounding. Detectron2 leaves their order to NumPy's default sort, which need
    not keep the order of the images and can differ between kinds of CPU, and so does this: a stable sort would
    give other numbers than Detectron2 on the same machine.
    """
    index_of = {image.image_id: index for index, image in enumerate(test.images)}
    image = _join([np.full(len(found.scores), index_of[found.image_id]) for found in detections], np.int64)
    labels = _join([found.labels for found in detections], np.int64)
    scores = _round(_join([found.scores for found in detections], np.float64), 1000)
    # Detectron2 adds 1 in float32, before the rounding.
    corners = _join([found.boxes for found in detections], np.float32, width=4) + ONE_BASED.astype(np.float32)
    boxes = _round(corners.astype(np.float64), 10)
    ranked = []
    for label in range(len(test.classes)):
        of_class = np.flatnonzero(labels == label)
        of_class = of_class[np.argsort(-scores[of_class])]
        ranked.append(ClassDetections(boxes[of_class], image[of_class], scores[of_class]))
    return ranked


def _gather_objects(test: DetectionSet) -> list[ClassObjects]:
    image = _join([np.full(len(one.labels), index) for index, one in enumerate(test.images)], np.int64)
    labels = _join([one.labels for one in test.images], np.int64)
    difficult = _join([one.difficult for one in test.images], np.bool_)
    boxes = _join([one.boxes for one in test.images], np.float64, width=4) + ONE_BASED
    return [
        ClassObjects(boxes=boxes[labels == label], image=image[labels == label], difficult=difficult[labels == label])
        for label in range(len(test.classes))
    ]


def _join(parts: list[np.ndarray], dtype: type, *, width: int | None = None) -> np.ndarray:
    shape = (0,) if width is None else (0, width)
    empty: np.ndarray = np.zeros(shape, dtype=dtype)
    return np.concatenate([empty, *parts]).astype(dtype)


def _round(values: np.ndarray, scale: int) -> np.ndarray:
    """To 1/scale as printing with that many decimals does: exact for float32 values held in float64."""
    return np.rint(values * scale) / scale
