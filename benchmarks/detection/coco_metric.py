"""COCO average precision of boxes and of masks, computed by pycocotools."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.detection.precision_recall import CURVE_THRESHOLDS, Curve
from benchmarks.detection.records import Detections

# Rows of COCOeval.stats.
STATS = {"ap": 0, "ap50": 1, "ap75": 2, "ap_small": 3, "ap_medium": 4, "ap_large": 5}
KINDS = {"bbox": "box", "segm": "mask"}


@dataclass(frozen=True)
class CocoScores:
    """Fractions in [0, 1]; None where the ground truth has no object of that size or class.

    `stats` holds `ap`, `ap50`, `ap75`, `ap_small`, `ap_medium`, `ap_large`; `by_class` the AP of each category name.
    `curves` has one of each category with objects and each of `CURVE_THRESHOLDS`, with a point per recall reached of
    pycocotools' 101.
    """

    stats: dict[str, float | None]
    by_class: dict[str, float | None]
    curves: tuple[Curve, ...]


def evaluate_coco(ground_truth: dict[str, Any], detections: Sequence[Detections], *, iou_type: str) -> CocoScores:
    """Score detections whose label i means the i-th category id in rising order.

    Args:
        ground_truth: COCO's dictionary (`images`, `categories`, `annotations`); it is not changed.
        iou_type: `bbox`, or `segm` for detections with masks.
    """
    category_ids = sorted(category["id"] for category in ground_truth["categories"])
    results: list[dict[str, Any]] = []
    for found in detections:
        if iou_type == "segm":
            assert found.masks is not None, "masks are scored for detectors that have them"
            shapes: list[dict[str, Any]] = [{"segmentation": dict(mask)} for mask in found.masks]
        else:
            # The sides in float32, as Detectron2's evaluator computes them.
            boxes = np.concatenate((found.boxes[:, :2], found.boxes[:, 2:] - found.boxes[:, :2]), axis=1)
            shapes = [{"bbox": box} for box in boxes.tolist()]
        for shape, score, label in zip(shapes, found.scores.tolist(), found.labels.tolist(), strict=True):
            results.append({"image_id": found.image_id, "category_id": category_ids[label], "score": score, **shape})
    return score_results(ground_truth, results, iou_type=iou_type)


def score_results(ground_truth: dict[str, Any], results: list[dict[str, Any]], *, iou_type: str) -> CocoScores:
    """Score COCO result entries (`image_id`, `category_id`, `score`, and `bbox` or `segmentation`).

    Entries for `segm` carry no `bbox`, so that pycocotools takes their area from the mask.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {**ground_truth, "annotations": [dict(one) for one in ground_truth["annotations"]]}
        truth.createIndex()
        found = truth.loadRes(results) if results else _no_results(truth)
        evaluation = COCOeval(truth, found, iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # (thresholds, recalls, categories, object sizes, detections per image): all sizes, the largest number.
    precision, scores = (evaluation.eval[name][:, :, :, 0, -1] for name in ("precision", "scores"))
    names = {category["id"]: category["name"] for category in ground_truth["categories"]}
    return CocoScores(
        stats={name: _known(float(evaluation.stats[row])) for name, row in STATS.items()},
        by_class={names[number]: _mean(precision[..., k]) for k, number in enumerate(evaluation.params.catIds)},
        curves=_curves(evaluation.params, precision, scores, names, KINDS[iou_type]),
    )


def _curves(
    params: Any, precision: np.ndarray, scores: np.ndarray, names: dict[int, str], kind: str
) -> tuple[Curve, ...]:
    """Curves out of pycocotools' tables (thresholds, recalls, categories)."""
    curves = []
    for k, number in enumerate(params.catIds):
        for iou in CURVE_THRESHOLDS:
            row = int(np.flatnonzero(np.isclose(params.iouThrs, iou))[0])
            if (precision[row, :, k] == -1).all():
                continue  # no object of that category
            reached = precision[row, :, k] > 0
            points = (params.recThrs[reached], precision[row, reached, k], scores[row, reached, k])
            curves.append(Curve(names[number], kind, iou, *points))
    return tuple(curves)


def _no_results(truth: Any) -> Any:
    """What `loadRes` cannot make of an empty list."""
    from pycocotools.coco import COCO

    empty = COCO()
    empty.dataset = {**truth.dataset, "annotations": []}
    empty.createIndex()
    return empty


def _mean(precision: np.ndarray) -> float | None:
    """The mean over thresholds and recalls; pycocotools marks a category without objects by -1."""
    known = precision[precision > -1]
    return float(known.mean()) if known.size else None


def _known(stat: float) -> float | None:
    return stat if stat > -1 else None
