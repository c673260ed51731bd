"""VOC07 classification: presence and precision by hand, SVMs as scikit-learn has them, and the task end to end."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import in_processes
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.svm import LinearSVC
from tiny_classification import run_tiny

from benchmarks.classification.svm import (
    Examples,
    choose_cost,
    fit_and_score,
    image_ap,
    low_shot,
    run_svm,
    unit_length,
)
from benchmarks.classification.svm_images import presence
from benchmarks.classification.svm_protocol import SVM_PROTOCOLS, SvmProtocol
from benchmarks.context import RunContext
from benchmarks.detection.records import DetectionSet, LabelledImage
from mocobench.runtime.errors import UserError
from transfer.network import random_backbone

CONTEXT = RunContext(seed=0, device=torch.device("cpu"), precision="fp32", num_workers=0)
SMALL = SvmProtocol(
    id="x",
    expected_images=(),
    train_splits=("trainval",),
    test_splits=("test",),
    image_size=32,
    test_resize=36,
    costs=(0.1, 10.0),
    shots=(1, 2),
    draws=3,
)


def labelled(objects: Sequence[tuple[int, bool]]) -> LabelledImage:
    labels, difficult = (np.array([pair[at] for pair in objects], dtype=kind) for at, kind in ((0, int), (1, bool)))
    boxes = np.tile(np.float32([0, 0, 8, 8]), (len(objects), 1))
    return LabelledImage("1", Path("1.jpg"), 8, 8, boxes, labels, difficult, np.zeros(len(objects), dtype=bool))


def test_an_image_with_only_difficult_objects_of_a_class_counts_neither_way() -> None:
    images = (labelled([(0, False), (1, True)]), labelled([(1, True), (1, False)]), labelled([]))
    assert presence(DetectionSet(images, ("a", "b"))).tolist() == [[1, 0], [-1, 1], [-1, -1]]


def test_average_precision_by_hand() -> None:
    # Ranked: present, absent, present, absent, present. Precision 1 at recall 1/3, 2/3 at 2/3, 3/5 at 1: recalls 0 to
    # 0.3 read 1, 0.4 to 0.6 read 2/3, 0.7 to 1.0 read 3/5.
    scores, present = np.array([0.1, 0.9, 0.5, 0.3, 0.2]), np.array([True, True, True, False, False])
    ranked = image_ap(np.array([0.9, 0.7, 0.5, 0.3, 0.1]), np.array([True, False, True, False, True]))
    assert ranked == pytest.approx((4 * 1 + 3 * 2 / 3 + 4 * 3 / 5) / 11)
    assert image_ap(scores, present) == pytest.approx((4 * 1 + 3 * 1 + 4 * 3 / 5) / 11)


def examples(num_images: int = 120) -> Examples:
    generator = np.random.default_rng(0)
    of_class = np.where(np.arange(num_images) % 3 == 0, 1, -1)
    features = generator.normal(size=(num_images, 10)) + 0.6 * of_class[:, None]
    return Examples(features / np.linalg.norm(features, axis=1, keepdims=True), of_class)


def test_the_cost_is_the_one_of_a_grid_search() -> None:
    train = examples()
    machine = LinearSVC(class_weight={1: 2, -1: 1}, tol=1e-4, max_iter=2000, dual=True, random_state=0)
    costs = [1e-4, 1e-2, 1.0, 100.0]

    def scorer(machine: LinearSVC, features: np.ndarray, of_class: np.ndarray) -> float:
        return image_ap(machine.decision_function(features), of_class == 1)

    folds = StratifiedKFold(3, shuffle=True, random_state=5)
    search = GridSearchCV(machine, {"C": costs}, cv=folds, scoring=scorer).fit(train.features, train.presence)
    protocol = SvmProtocol(id="x", expected_images=(), costs=tuple(reversed(costs)))
    assert choose_cost(train, protocol, seed=5) == search.best_params_["C"]
    # The area that scikit-learn measures and the mean of 11 points are close where there are many positives.
    expected = average_precision_score(train.presence == 1, search.decision_function(train.features))
    assert fit_and_score(train, train, search.best_params_["C"], protocol) == pytest.approx(expected, abs=0.05)


def test_low_shot_draws_differ_and_repeat() -> None:
    train = examples()
    draws = low_shot(train, train, 1.0, 2, SMALL, seed=0)
    assert len(set(draws)) == 3
    assert draws == low_shot(train, train, 1.0, 2, SMALL, seed=0)
    # All positives and all negatives leave nothing to draw.
    whole = 100 * fit_and_score(train, train, 1.0, SMALL)
    assert low_shot(train, train, 1.0, 40, SMALL, seed=0) == pytest.approx([whole] * 3, abs=0.5)


def test_the_task_end_to_end(voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measurement = run_svm(random_backbone("resnet18", 0), voc, SMALL, CONTEXT)
    assert measurement.metrics == {"map": 100.0, "map_1": 100.0, "map_2": 100.0}
    assert measurement.metric_info.keys() == measurement.metrics.keys()
    assert set(measurement.details["per_class"]) == {"cat", "dog"}
    assert measurement.details["per_class"]["cat"]["train_images"] == 6
    assert len(measurement.details["left_out"]) == 18
    assert "left out, with too few positive or negative images: aeroplane, bicycle, bird," in capsys.readouterr().out


def test_processes_share_the_classes(voc: Path) -> None:
    ((_, one),) = in_processes(1, run_tiny, "svm", voc)
    for _, other in in_processes(2, run_tiny, "svm", voc):
        assert other == one
    assert len(one.details["low_shot"]["map_2"]["draws"]) == 3


def test_no_class_with_enough_images_is_an_error(voc: Path) -> None:
    with pytest.raises(
        UserError, match="expected a class with 7 positive and as many negative training images and a positive"
    ):
        run_svm(random_backbone("resnet18", 0), voc, SvmProtocol(**{**vars(SMALL), "folds": 7}), CONTEXT)


def test_a_class_that_every_training_image_shows_is_left_out(voc: Path) -> None:
    for path in (voc / "Annotations").glob("*.xml"):
        box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
        text = path.read_text().replace("</annotation>", f"<object><name>person</name>{box}</object></annotation>")
        path.write_text(text)
    measurement = run_svm(random_backbone("resnet18", 0), voc, SMALL, CONTEXT)
    assert set(measurement.details["per_class"]) == {"cat", "dog"}
    assert "person" in measurement.details["left_out"]


def test_features_of_unit_length_by_hand() -> None:
    features = unit_length(np.float32([[3, 4], [0, 0], [0, 1e-30]]))
    np.testing.assert_allclose(features, [[0.6, 0.8], [0, 0], [0, 1e-18]], rtol=1e-6)
    assert features.dtype == np.float32


def test_settings_out_of_range() -> None:
    with pytest.raises(UserError, match="--folds 1: expected at least 2"):
        SvmProtocol(id="x", expected_images=(), folds=1)
    with pytest.raises(UserError, match=r"--costs 0\.1,-1\.0: expected one or more numbers above 0"):
        SvmProtocol(id="x", expected_images=(), costs=(0.1, -1.0))
    assert SVM_PROTOCOLS["paper"].expected_images == (("train", 5011), ("test", 4952))
