"""VOC evaluation of random detections, here and by Detectron2's evaluator: the same scores, and how long each takes."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.detection.records import Detections, DetectionSet, LabelledImage
from benchmarks.detection.voc_data import VOC_CLASSES
from benchmarks.detection.voc_metric import VocScores, evaluate_voc

SIDE = 500  # pixels of every image
METRIC_OF_YEAR = {2007: "voc-11-point", 2012: "voc-area"}


def random_test_set(num_images: int, classes: Sequence[str], *, seed: int) -> DetectionSet:
    """Images of 0 to 5 objects with whole coordinates, one in ten difficult; the last class has none."""
    rng = np.random.default_rng(seed)
    images = []
    for number in range(num_images):
        count = int(rng.integers(0, 6))
        corners = rng.integers(0, SIDE - 150, (count, 2))
        boxes = np.concatenate((corners, corners + rng.integers(10, 150, (count, 2))), axis=1)
        labels = rng.integers(0, len(classes) - 1, count)
        difficult = rng.random(count) < 0.1
        image_id = f"{number:06d}"
        fields: dict[str, Any] = {"labels": labels, "difficult": difficult, "crowd": np.zeros(count, dtype=bool)}
        boxes = boxes.astype(np.float32)
        images.append(LabelledImage(image_id, Path(f"{image_id}.jpg"), SIDE, SIDE, boxes=boxes, **fields))
    return DetectionSet(tuple(images), tuple(classes))


def random_detections(test: DetectionSet, num_each: int, *, seed: int) -> list[Detections]:
    """`num_each` detections per image by falling score: half of them near an object, most of those of its class."""
    rng = np.random.default_rng(seed)
    detections = []
    for image in test.images:
        boxes = rng.uniform(-5, SIDE, (num_each, 4))
        boxes[:, 2:] = boxes[:, :2] + rng.uniform(1, 200, (num_each, 2))
        labels = rng.integers(0, len(test.classes), num_each)
        if len(image.boxes):
            near = rng.integers(0, len(image.boxes), num_each // 2)
            boxes[: len(near)] = image.boxes[near] + rng.normal(0, 8, (len(near), 4))
            labels[: len(near)] = np.where(rng.random(len(near)) < 0.9, image.labels[near], labels[: len(near)])
        # Three decimals at most: equal scores are common.
        scores = np.sort(rng.beta(0.6, 2, num_each).round(4))[::-1]
        order = rng.permutation(num_each)
        detections.append(
            Detections(image.image_id, boxes[order].astype(np.float32), scores.astype(np.float32), labels[order])
        )
    return detections


def untied_detections(test: DetectionSet, *, seed: int) -> list[Detections]:
    """Twenty detections in each of up to 50 images, of classes with objects, all of different scores when rounded."""
    detections = random_detections(test, 20, seed=seed)
    scores = np.random.default_rng(seed).permutation(20 * len(detections)).reshape(-1, 20) / 1000
    return [
        replace(found, scores=np.sort(own)[::-1].astype(np.float32), labels=found.labels % (len(test.classes) - 1))
        for found, own in zip(detections, scores, strict=True)
    ]


def write_annotations(test: DetectionSet, folder: Path) -> None:
    """The test set as the XML files and the list that Detectron2's evaluator reads."""
    (folder / "Annotations").mkdir(parents=True)
    (folder / "ImageSets/Main").mkdir(parents=True)
    for image in test.images:
        objects = ""
        for box, label, difficult in zip(image.boxes.astype(int), image.labels, image.difficult, strict=True):
            x1, y1, x2, y2 = np.add(box, (1, 1, 0, 0))
            corners = f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
            flags = f"<pose>none</pose><truncated>0</truncated><difficult>{int(difficult)}</difficult>"
            objects += f"<object><name>{test.classes[label]}</name>{flags}<bndbox>{corners}</bndbox></object>"
        (folder / f"Annotations/{image.image_id}.xml").write_text(f"<annotation>{objects}</annotation>")
    (folder / "ImageSets/Main/test.txt").write_text("".join(f"{image.image_id}\n" for image in test.images))


def detectron2_scores(
    test: DetectionSet, detections: Sequence[Detections], folder: Path, *, year: int
) -> tuple[dict[str, float], float]:
    """AP, AP50 and AP75 in percent by Detectron2's evaluator, and the seconds its `evaluate` took."""
    import torch
    from detectron2.data import MetadataCatalog
    from detectron2.evaluation import PascalVOCDetectionEvaluator
    from detectron2.structures import Boxes, Instances

    name = f"random_voc_{folder.name}_{year}"
    meta = {"dirname": str(folder), "split": "test", "year": year, "thing_classes": list(test.classes)}
    MetadataCatalog.get(name).set(**meta)
    try:
        evaluator = PascalVOCDetectionEvaluator(name)
        evaluator.reset()
        for found in detections:
            instances = Instances((SIDE, SIDE), pred_boxes=Boxes(torch.from_numpy(found.boxes)))
            instances.scores, instances.pred_classes = torch.from_numpy(found.scores), torch.from_numpy(found.labels)
            evaluator.process([{"image_id": found.image_id}], [{"instances": instances}])
        started = time.perf_counter()
        scores = evaluator.evaluate()["bbox"]
        return scores, time.perf_counter() - started
    finally:
        MetadataCatalog.remove(name)


def our_percents(scores: VocScores) -> dict[str, float]:
    """Our scores by Detectron2's names."""
    return {"AP": 100 * scores.ap, "AP50": 100 * scores.ap50, "AP75": 100 * scores.ap75}


def time_voc_evaluation(num_images: int, detections_per_image: int, *, repeats: int = 5) -> dict[str, Any]:
    """Seconds of both on the 20 classes with the 2007 metric, and how many times faster ours is.

    Ours is the median of `repeats`, from detections in memory to scores; Detectron2's one run of `evaluate`, without
    the time in which it collects the detections. `largest_difference` is between the scores, in percent.
    """
    test = random_test_set(num_images, VOC_CLASSES, seed=0)
    detections = random_detections(test, detections_per_image, seed=1)
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        ours = evaluate_voc(test, detections, metric=METRIC_OF_YEAR[2007])
        seconds.append(time.perf_counter() - started)
    with tempfile.TemporaryDirectory() as folder:
        write_annotations(test, Path(folder))
        theirs, their_seconds = detectron2_scores(test, detections, Path(folder), year=2007)
    percents = our_percents(ours)
    return {
        "num_images": num_images,
        "detections_per_image": detections_per_image,
        "our_seconds": median(seconds),
        "detectron2_seconds": their_seconds,
        "times_faster": their_seconds / median(seconds),
        "largest_difference": max(abs(percents[name] - float(theirs[name])) for name in percents),
    }
