"""VOC average precision: answers derived by hand, then published values."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from perf.voc_evaluation import (
    METRIC_OF_YEAR,
    detectron2_scores,
    our_percents,
    random_detections,
    random_test_set,
    untied_detections,
    write_annotations,
)

from benchmarks.detection.records import Detections, DetectionSet, LabelledImage
from benchmarks.detection.voc_metric import (
    IOU_THRESHOLDS,
    METRICS,
    ClassDetections,
    ClassObjects,
    average_precision,
    evaluate_voc,
    judge,
    pairwise_iou,
)


def image(number: int, boxes: list[list[float]], difficult: list[bool] | None = None) -> LabelledImage:
    """An image whose objects are all of class 0."""
    count = len(boxes)
    return LabelledImage(
        image_id=f"image{number}",
        path=Path("none.jpg"),
        width=1000,
        height=1000,
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        labels=np.zeros(count, dtype=np.int64),
        difficult=np.array(difficult or [False] * count, dtype=bool),
        crowd=np.zeros(count, dtype=bool),
    )


def found(number: int, boxes: list[list[float]], scores: list[float]) -> Detections:
    return Detections(
        image_id=f"image{number}",
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        scores=np.array(scores, dtype=np.float32),
        labels=np.zeros(len(scores), dtype=np.int64),
    )


A, B, FAR = [0, 0, 100, 100], [200, 200, 300, 300], [500, 500, 600, 600]


def score(images: list[LabelledImage], detections: list[Detections], metric: str = "voc-area") -> np.ndarray:
    """AP at every threshold of the one class."""
    return evaluate_voc(DetectionSet(tuple(images), ("thing",)), detections, metric=metric).by_class[0]


def test_iou_counts_both_ends_of_a_box() -> None:
    # 1..10 and 6..15 in x: 10 pixels each, 5 shared; the same ten rows: 50 / (100 + 100 - 50).
    iou = pairwise_iou(np.array([[1.0, 1, 10, 10]]), np.array([[6.0, 1, 15, 10]]))
    assert iou.tolist() == [1 / 3]
    assert pairwise_iou(np.array([[1.0, 1, 10, 10]]), np.array([[11.0, 1, 20, 10]])).tolist() == [0]


@pytest.mark.parametrize("metric", METRICS)
def test_a_perfect_detector_has_one_and_a_silent_one_zero(metric: str) -> None:
    images = [image(0, [A, B]), image(1, [A])]
    assert score(images, [found(0, [A, B], [0.9, 0.8]), found(1, [A], [0.7])], metric).tolist() == pytest.approx(
        [1] * 10
    )
    assert score(images, [found(0, [], []), found(1, [], [])], metric).tolist() == [0] * 10
    assert score(images, [], metric).tolist() == [0] * 10


def test_area_and_eleven_points_by_hand() -> None:
    # True, false, true of two objects: precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1.
    images, detections = [image(0, [A, B])], [found(0, [A, FAR, B], [0.9, 0.8, 0.7])]
    assert score(images, detections, "voc-area")[0] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    # Recalls 0 .. 0.5 see precision 1 (six points), 0.6 .. 1 see 2/3 (five points).
    assert score(images, detections, "voc-11-point")[0] == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)


def test_a_second_detection_of_an_object_is_false() -> None:
    # False comes before the true one of B, so B's precision is 2/3.
    value = score([image(0, [A, B])], [found(0, [A, A, B], [0.9, 0.8, 0.7])])[0]
    assert value == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_difficult_objects_neither_count_nor_harm() -> None:
    images = [image(0, [A, B], [True, False])]
    assert score(images, [found(0, [A, A, B], [0.9, 0.8, 0.7])])[0] == 1


def test_a_detection_in_another_image_is_false() -> None:
    images = [image(0, [A]), image(1, [])]
    assert score(images, [found(1, [A], [0.9]), found(0, [A], [0.8])])[0] == 0.5


def test_overlap_must_exceed_the_threshold() -> None:
    # 100 of 200 columns, the same rows: IoU is exactly 0.5, which is not above 0.5.
    images = [image(0, [[0, 0, 200, 100]])]
    assert score(images, [found(0, [[0, 0, 100, 100]], [0.9])]).tolist() == [0] * 10
    # 160 of 200 columns: IoU 0.8 counts at .50 .. .75.
    assert score(images, [found(0, [[0, 0, 160, 100]], [0.9])]).tolist() == [1] * 6 + [0] * 4


def test_scores_are_compared_with_three_decimals() -> None:
    # 0.9001 and 0.9004 are both 0.900 when filed, so the true detection, first in the list, stays first.
    images = [image(0, [A]), image(1, [])]
    assert score(images, [found(0, [A], [0.9001]), found(1, [A], [0.9004])])[0] == 1
    assert score(images, [found(0, [A], [0.900]), found(1, [A], [0.902])])[0] == 0.5


def test_a_class_without_objects_counts_as_zero() -> None:
    scores = evaluate_voc(DetectionSet((image(0, [A]),), ("thing", "other")), [found(0, [A], [0.9])], metric="voc-area")
    assert (scores.ap, scores.ap50, scores.ap75) == (0.5, 0.5, 0.5)
    assert scores.num_objects.tolist() == [1, 0]


def test_the_three_means_are_over_classes_and_thresholds() -> None:
    scores = evaluate_voc(
        DetectionSet((image(0, [[0, 0, 200, 100]]),), ("thing",)),
        [found(0, [[0, 0, 160, 100]], [0.9])],
        metric="voc-area",
    )
    assert (scores.ap50, scores.ap75, scores.ap) == (1, 1, pytest.approx(0.6))
    assert IOU_THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


@pytest.mark.detectron2
def test_a_detected_class_without_objects_is_zero_where_detectron2s_area_is_not_a_number(tmp_path: Path) -> None:
    pytest.importorskip("detectron2", reason="Detectron2 is not installed")
    test = random_test_set(10, ("car", "none"), seed=0)
    detections = random_detections(test, 10, seed=1)
    write_annotations(test, tmp_path / "voc")
    theirs, _ = detectron2_scores(test, detections, tmp_path / "voc", year=2012)
    assert np.isnan(theirs["AP50"])
    ours = evaluate_voc(test, detections, metric="voc-area")
    assert ours.by_class[1].tolist() == [0] * 10
    assert ours.ap50 > 0


def test_a_curve_has_a_point_for_every_object_found() -> None:
    # True, false, true of two objects; at .75 the first overlaps too little (70 of 101 columns) and is false too.
    images, detections = [image(0, [A, B])], [found(0, [[0, 0, 70, 100], FAR, B], [0.9, 0.8, 0.7])]
    at_50, at_75 = evaluate_voc(DetectionSet(tuple(images), ("thing", "other")), detections, metric="voc-area").curves
    assert (at_50.class_name, at_50.kind, at_50.iou, at_75.iou) == ("thing", "box", 0.50, 0.75)
    assert at_50.recall.tolist() == [0.5, 1]
    assert at_50.precision.tolist() == [1, 2 / 3]
    assert at_50.score.tolist() == [0.9, 0.7]
    assert (at_75.recall.tolist(), at_75.precision.tolist()) == ([0.5], [1 / 3])


def test_scores_are_those_that_detectron2_gave_once() -> None:
    """Golden values: made by the real Detectron2 with tests/data/make_voc_scores_golden.py."""
    golden = json.loads((Path(__file__).parent / "data/voc_scores_golden.json").read_text())
    test = random_test_set(golden["num_images"], golden["classes"], seed=0)
    detections = untied_detections(test, seed=1)
    for case in golden["cases"]:
        scores = evaluate_voc(test, detections, metric=METRIC_OF_YEAR[case["year"]])
        assert our_percents(scores) == pytest.approx(case["expected"], rel=0, abs=1e-9)
        assert 10 < scores.ap50 * 100 < 70


@pytest.mark.detectron2
@pytest.mark.parametrize("year", [2007, 2012])
def test_scores_are_those_of_detectron2s_evaluator(tmp_path: Path, year: int) -> None:
    """Ties, difficult objects, a class without objects, one never detected, an image without either."""
    pytest.importorskip("detectron2", reason="Detectron2 is not installed")
    # Detectron2's area metric is NaN for a class that is detected and has no objects, so there it has neither.
    classes = ("car", "dog", "cat", "none")
    test = random_test_set(40, classes, seed=year)
    detections = [
        replace(some, boxes=some.boxes[kept], scores=some.scores[kept], labels=some.labels[kept])
        for some in random_detections(test, 60, seed=1)
        for kept in [(some.labels != 2) & (some.labels != (3 if year == 2012 else -1))]
    ]
    detections[3] = replace(
        detections[3], boxes=detections[3].boxes[:0], scores=detections[3].scores[:0], labels=detections[3].labels[:0]
    )
    scores = np.concatenate([some.scores for some in detections])
    assert len(np.unique(scores.round(3))) < len(scores) / 2
    write_annotations(test, tmp_path / "voc")
    theirs, _ = detectron2_scores(test, detections, tmp_path / "voc", year=year)
    ours = evaluate_voc(test, detections, metric=METRIC_OF_YEAR[year])
    assert 10 < theirs["AP50"] < 70
    assert our_percents(ours) == pytest.approx(theirs, rel=0, abs=1e-9)


def test_the_order_of_images_does_not_matter_without_ties() -> None:
    rng = np.random.default_rng(0)
    images, detections = [], []
    scores = rng.permutation(200) / 1000
    for number in range(20):
        corners = rng.integers(0, 60, (10, 2))
        boxes = np.concatenate([corners, corners + rng.integers(10, 60, (10, 2))], axis=1)
        images.append(image(number, boxes[:4].tolist()))
        moved = (boxes[:4] + rng.integers(-4, 5, (4, 4))).tolist() + boxes[4:].tolist()
        detections.append(found(number, moved, scores[10 * number : 10 * number + 10].tolist()))
    forward = score(images, detections)
    assert 0 < forward[0] < 1
    np.testing.assert_allclose(score(images[::-1], detections[::-1]), forward, rtol=1e-12)


def read_toy(folder: Path, first_coordinate: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of numbers after the class name, boxes as corners, and the index of their file."""
    rows, images = [], []
    for index, path in enumerate(sorted(folder.glob("*.txt"))):
        for line in path.read_text().split("\n"):
            if line.strip():
                rows.append([float(word) for word in line.split()[1:]])
                images.append(index)
    table = np.array(rows)
    table[:, first_coordinate + 2 :] += table[:, first_coordinate : first_coordinate + 2]
    return table, np.array(images)


@pytest.mark.parametrize(("metric", "name"), [("voc-11-point", "expected_11pt"), ("voc-area", "expected_allpoint")])
def test_published_toy_values(shared_data: Path, metric: str, name: str) -> None:
    """Padilla's example, whose equal scores keep the order of the files."""
    expected = json.loads((shared_data / "ap-reference/EXPECTED.json").read_text())["voc-toy"][name]
    objects, object_image = read_toy(shared_data / "ap-reference/voc-toy/gts", 0)
    table, image_of = read_toy(shared_data / "ap-reference/voc-toy/dets", 1)
    assert (len(objects), len(table)) == (15, 24)
    ranked = np.argsort(-table[:, 0], kind="stable")
    outcomes = judge(
        ClassDetections(boxes=table[ranked, 1:], image=image_of[ranked], scores=table[ranked, 0]),
        ClassObjects(boxes=objects, difficult=np.zeros(len(objects), dtype=bool), image=object_image),
        iou_thresholds=[float(threshold) for threshold in expected],
    )
    values = [average_precision(outcome, metric=metric) for outcome in outcomes]
    # The published values have ten decimals.
    np.testing.assert_allclose(values, list(expected.values()), rtol=0, atol=1e-9)
