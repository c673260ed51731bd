"""COCO average precision: answers derived by hand, then the published figures of pycocotools."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.detection.coco_metric import evaluate_coco, score_results
from benchmarks.detection.records import Detections

# Two objects of the categories 3 and 8, 40 pixels wide and high (medium: 32^2 .. 96^2); none of category 5.
BOXES = [[0.0, 0.0, 40.0, 40.0], [50.0, 50.0, 90.0, 90.0]]


def ground_truth() -> dict[str, Any]:
    annotations = [
        {
            "id": number,
            "image_id": 7,
            "category_id": category,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": 1600.0,
            "iscrowd": 0,
            "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]],
        }
        for number, (category, (x1, y1, x2, y2)) in enumerate(zip((8, 3), BOXES, strict=True), start=1)
    ]
    categories = [{"id": 8, "name": "truck"}, {"id": 3, "name": "car"}, {"id": 5, "name": "bus"}]
    images = [{"id": 7, "width": 100, "height": 100}, {"id": 9, "width": 100, "height": 100}]
    return {"images": images, "annotations": annotations, "categories": categories}


def found(boxes: list[list[float]], labels: list[int], image_id: int = 7) -> Detections:
    """Detections of equal score with masks that fill their boxes."""
    from pycocotools import mask

    codes = []
    for x1, y1, x2, y2 in boxes:
        pixels = np.zeros((100, 100), dtype=np.uint8, order="F")
        pixels[int(y1) : int(y2), int(x1) : int(x2)] = 1
        codes.append(mask.encode(pixels))
    return Detections(
        image_id=image_id,
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        scores=np.full(len(boxes), 0.9, dtype=np.float32),
        labels=np.array(labels, dtype=np.int64),
        masks=tuple(codes),
    )


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_labels_are_category_ids_in_rising_order(iou_type: str) -> None:
    # The ids 3, 5, 8 are the labels 0, 1, 2: the first object is a truck (8), the second a car (3).
    scores = evaluate_coco(ground_truth(), [found(BOXES, [2, 0])], iou_type=iou_type)
    assert scores.by_class == {"car": pytest.approx(1), "bus": None, "truck": pytest.approx(1)}
    assert scores.stats["ap"] == pytest.approx(1)
    assert scores.stats["ap_medium"] == pytest.approx(1)
    assert scores.stats["ap_small"] is None
    swapped = evaluate_coco(ground_truth(), [found(BOXES, [0, 2])], iou_type=iou_type)
    assert swapped.stats["ap"] == 0


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_overlap_counts_up_to_its_threshold(iou_type: str) -> None:
    # 32 of 40 columns: IoU 0.8 counts at the seven thresholds .50 .. .80 for the truck, at none for the car.
    scores = evaluate_coco(ground_truth(), [found([[0, 0, 32, 40]], [2])], iou_type=iou_type)
    assert scores.by_class["truck"] == pytest.approx(0.7)
    assert scores.by_class["car"] == 0
    assert scores.stats["ap"] == pytest.approx(0.35)
    assert (scores.stats["ap50"], scores.stats["ap75"]) == (pytest.approx(0.5), pytest.approx(0.5))


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_no_detections_at_all_score_zero(iou_type: str) -> None:
    for nothing in ([], [found([], []), found([], [], image_id=9)]):
        scores = evaluate_coco(ground_truth(), nothing, iou_type=iou_type)
        assert (scores.stats["ap"], scores.stats["ap50"], scores.stats["ap75"]) == (0, 0, 0)
        assert scores.by_class == {"car": 0, "bus": None, "truck": 0}


def test_scoring_prints_nothing_and_leaves_the_ground_truth_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    truth = ground_truth()
    for iou_type in ("bbox", "segm"):
        evaluate_coco(truth, [found(BOXES, [2, 0])], iou_type=iou_type)
    assert truth == ground_truth()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_published_figures_of_100_coco_images(shared_data: Path, iou_type: str) -> None:
    folder = shared_data / "ap-reference"
    reference = json.loads((folder / "EXPECTED.json").read_text())[f"coco-val2014-100/{iou_type}"]
    truth = json.loads((folder / reference["ground_truth"]).read_text())
    results = json.loads((folder / reference["detections"]).read_text())
    scores = score_results(truth, results, iou_type=iou_type)
    names = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ap_small": "APs", "ap_medium": "APm", "ap_large": "APl"}
    expected = {ours: reference["expected"][theirs] for ours, theirs in names.items()}
    assert scores.stats == pytest.approx(expected, rel=0, abs=1e-6)
