"""COCO average precision: answers derived by hand, then the published figures of pycocotools."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

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


@pytest.mark.detectron2
def test_scores_are_those_of_detectron2s_evaluator(tmp_path: Path) -> None:
    pytest.importorskip("detectron2", reason="Detectron2 is not installed")
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.data.datasets import register_coco_instances
    from detectron2.evaluation import COCOEvaluator
    from detectron2.structures import Boxes, Instances
    from pycocotools import mask

    rng = np.random.default_rng(0)
    truth = ground_truth()
    (size,) = {(image["height"], image["width"]) for image in truth["images"]}
    truth["images"] = [{**truth["images"][0], "id": number, "file_name": f"{number}.jpg"} for number in range(12)]
    truth["annotations"], detections = [], []
    for number in range(12):
        corners = rng.uniform(0, 40, (6, 2)).round(2)
        sides = rng.uniform(5, 60, (6, 2)).round(2)
        for (x, y), (w, h) in zip(corners[:4], sides[:4], strict=True):
            shape = {"bbox": [x, y, w, h], "area": w * h, "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]}
            category = [3, 5, 8][int(rng.integers(3))]
            own = {"id": len(truth["annotations"]) + 1, "image_id": number, "category_id": category}
            truth["annotations"].append({**own, "iscrowd": int(rng.random() < 0.1), **shape})
        moved = np.concatenate((corners, corners + sides), axis=1) + rng.normal(0, 4, (6, 4))
        moved = np.clip(moved, 0, 100)
        labels = [truth["annotations"][-4 + i]["category_id"] if i < 4 else 3 for i in range(6)]
        some = found(moved.tolist(), [[3, 5, 8].index(category) for category in labels], image_id=number)
        detections.append(replace(some, scores=np.sort(rng.random(6)).astype(np.float32)[::-1].copy()))
    path = tmp_path / "truth.json"
    path.write_text(json.dumps({**truth, "info": {}}))
    register_coco_instances(str(path), {}, str(path), str(tmp_path))
    try:
        DatasetCatalog.get(str(path))  # only then are the category ids known
        evaluator = COCOEvaluator(str(path), ("bbox", "segm"), distributed=False, use_fast_impl=False)
        evaluator.reset()
        for some in detections:
            instances = Instances(size, pred_boxes=Boxes(torch.from_numpy(some.boxes)))
            instances.scores = torch.from_numpy(some.scores)
            instances.pred_classes = torch.from_numpy(some.labels)
            assert some.masks is not None
            instances.pred_masks = torch.from_numpy(np.stack([mask.decode(code) for code in some.masks]))
            evaluator.process([{"image_id": some.image_id}], [{"instances": instances}])
        expected = evaluator.evaluate()
    finally:
        DatasetCatalog.remove(str(path))
        MetadataCatalog.remove(str(path))
    for iou_type in ("bbox", "segm"):
        scores = evaluate_coco(truth, detections, iou_type=iou_type)
        assert 20 < expected[iou_type]["AP50"] < 95
        assert [100 * scores.stats[name] for name in ("ap", "ap50", "ap75")] == pytest.approx(
            [expected[iou_type][name] for name in ("AP", "AP50", "AP75")], rel=0, abs=1e-9
        )


def test_curves_reach_the_recall_and_precision_of_the_detections() -> None:
    # A false truck above the one true truck: precision 1/2 up to recall 1. The car is not found at .75.
    detections = [replace(found([[60, 60, 90, 90], BOXES[0]], [2, 2]), scores=np.array([0.9, 0.8], np.float32))]
    scores = evaluate_coco(ground_truth(), detections, iou_type="bbox")
    assert [(curve.class_name, curve.kind, curve.iou) for curve in scores.curves] == [
        *(("car", "box", 0.5), ("car", "box", 0.75)),
        *(("truck", "box", 0.5), ("truck", "box", 0.75)),
    ]
    for curve in scores.curves[:2]:
        assert len(curve.recall) == len(curve.precision) == len(curve.score) == 0
    for curve in scores.curves[2:]:
        assert curve.recall.tolist() == pytest.approx(np.linspace(0, 1, 101))
        assert set(curve.precision.tolist()) == {0.5}
        assert curve.score.tolist() == pytest.approx([0.9] + [0.8] * 100)  # recall 0 is reached by any detection
