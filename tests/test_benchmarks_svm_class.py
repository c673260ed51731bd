"""One class of VOC07 classification: precisions by hand, and the same numbers as the authors' steps written plainly."""

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import average_precision_score
from sklearn.model_selection import cross_val_score
from sklearn.svm import LinearSVC

from benchmarks.classification import svm_class
from benchmarks.classification.svm_class import Examples, choose_cost, image_ap, low_shot, score_class, unit_length
from benchmarks.classification.svm_images import ABSENT, DIFFICULT, PRESENT
from benchmarks.classification.svm_protocol import SVM_PROTOCOLS, SvmProtocol

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
PROTOCOL = SvmProtocol(id="x", expected_images=(), shots=(1, 2), draws=3)


def ranked(*presences: int) -> tuple[np.ndarray, Examples]:
    """Images in the order of their decision values, and these values."""
    values = np.linspace(1, -1, len(presences))
    return values, Examples(values[:, None], np.array(presences))


def test_both_precisions_by_hand() -> None:
    # Precision 1 at recall 1/3, 2/3 at 2/3 and 3/5 at 1: an area of as many thirds; of the 11 recalls 0 to 0.3 read 1,
    # 0.4 to 0.6 read 2/3, 0.7 to 1.0 read 3/5.
    values, images = ranked(PRESENT, ABSENT, PRESENT, ABSENT, PRESENT)
    assert image_ap(values, images, metric="voc-area") == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    assert image_ap(values, images, metric="voc-11-point") == pytest.approx((4 * 1 + 3 * 2 / 3 + 4 * 3 / 5) / 11)
    shuffled = np.array([4, 0, 2, 1, 3])
    for metric in ("voc-area", "voc-11-point"):
        assert image_ap(values[shuffled], images[shuffled], metric=metric) == image_ap(values, images, metric=metric)


def test_the_area_is_below_the_envelope() -> None:
    # Precision 1/2 at recall 1/2, then 2/3 at 1, which the envelope has at 1/2 too.
    values, images = ranked(ABSENT, PRESENT, PRESENT)
    assert image_ap(values, images, metric="voc-area") == pytest.approx(2 / 3)
    assert average_precision_score(images.targets == 1, values) == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_features_of_unit_length_by_hand() -> None:
    features = unit_length(np.float32([[3, 4], [0, 0], [0, 1e-5]]))
    np.testing.assert_allclose(features, [[3 / 5.00001, 4 / 5.00001], [0, 0], [0, 0.5]], rtol=1e-7)
    assert features.dtype == np.float64


def test_the_costs_are_decades_and_then_powers_of_one_half() -> None:
    costs = SVM_PROTOCOLS["paper"].costs
    assert costs[:10] == (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1, 10, 100)
    assert costs[10:13] == (0.0625, 0.03125, 0.015625)
    assert (len(costs), costs[-1]) == (26, 0.5**19)


def test_of_equal_costs_the_first_is_taken() -> None:
    # One feature that says it all: every cost ranks every fold rightly.
    targets = np.array([1, -1] * 6)
    train = Examples(targets[:, None].astype(float), targets)
    assert choose_cost(train, replace(PROTOCOL, costs=(0.1, 10.0, 0.01))) == 0.1
    assert choose_cost(train, replace(PROTOCOL, costs=(10.0, 0.01, 0.1))) == 10.0


def drawn(num_images: int, seed: int) -> Examples:
    """Images whose features say something about a class; a third shows it, and in an eighth all of it is difficult."""
    generator = np.random.default_rng(seed)
    presence = np.where(np.arange(num_images) % 3 == 0, PRESENT, ABSENT)
    features = generator.normal(size=(num_images, 10)) + 0.6 * presence[:, None] + 2
    return Examples(unit_length(features), np.where(generator.random(num_images) < 1 / 8, DIFFICULT, presence))


def plain_machine(cost: float) -> LinearSVC:
    return LinearSVC(C=cost, class_weight={1: 2, -1: 1}, tol=0.0001, max_iter=2000, dual=True, random_state=0)


def plain_precisions(values: np.ndarray, shown: np.ndarray) -> tuple[float, float]:
    """The area below the envelope, step by step from the highest recall down, and VOC2007's mean over 11 recalls."""
    recalls, precisions, num_true = [0.0], [0.0], 0
    for count, at in enumerate(np.argsort(values)[::-1], start=1):
        num_true += shown[at]
        recalls.append(num_true / shown.sum())
        precisions.append(num_true / count)
    area, best = 0.0, 0.0
    for step in range(len(values), 0, -1):
        best = max(best, precisions[step])
        area += (recalls[step] - recalls[step - 1]) * best
    points = list(zip(recalls, precisions, strict=True))
    highest = [max(precision for recall, precision in points if recall >= level) for level in np.arange(0, 1.1, 0.1)]
    return area, sum(highest) / 11


@pytest.mark.parametrize("seed", range(4))
def test_a_class_is_scored_as_the_authors_scripts_score_it(seed: int) -> None:
    train, test = drawn(120, seed), drawn(90, seed + 100)
    # Training: difficult images are among the negative ones.
    targets = np.where(train.presence == PRESENT, 1, -1)
    of_costs = [
        cross_val_score(plain_machine(cost), train.features, targets, cv=3, scoring="average_precision").mean()
        for cost in PROTOCOL.costs
    ]
    cost = PROTOCOL.costs[np.argmax(of_costs)]
    # The test: they are left out.
    values = plain_machine(cost).fit(train.features, targets).decision_function(test.features)
    kept = test.presence != DIFFICULT
    area, eleven_point = plain_precisions(values[kept], test.presence[kept] == PRESENT)

    scores, few = score_class(train, test, PROTOCOL, num_classes=3, seed=0)
    assert scores["cost"] == cost
    assert scores["ap"] == pytest.approx(100 * area, rel=1e-9)
    assert scores["ap_11_point"] == pytest.approx(100 * eleven_point, rel=1e-9)
    assert abs(area - eleven_point) > 1e-4
    assert scores["train_images"] == (train.presence == PRESENT).sum()
    assert scores["test_percent"] == pytest.approx(100 * (test.presence == PRESENT).sum() / kept.sum())
    assert few.keys() == {1, 2}

    without = train.without_difficult()
    other = plain_machine(cost).fit(without.features, without.targets).decision_function(test.features)
    assert np.abs(other - values).max() > 1e-3


class Recorder(ClassifierMixin, BaseEstimator):
    """Notes which images it is trained on: their one feature is their number."""

    trained: ClassVar[list[list[int]]] = []

    def fit(self, features: np.ndarray, targets: np.ndarray) -> "Recorder":
        self.classes_ = np.unique(targets)
        self.trained.append(features[:, 0].astype(int).tolist())
        return self

    def decision_function(self, features: np.ndarray) -> np.ndarray:
        return features[:, 0]


def test_the_folds_are_blocks_of_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svm_class, "make_machine", lambda cost, protocol: Recorder())
    monkeypatch.setattr(Recorder, "trained", [])
    images = np.arange(12)
    train = Examples(images[:, None].astype(float), np.where(images % 2 == 0, PRESENT, ABSENT))
    assert choose_cost(train, replace(PROTOCOL, costs=(0.5,))) == 0.5
    blocks = ({0, 1, 2, 3}, {4, 5, 6, 7}, {8, 9, 10, 11})
    assert Recorder.trained == [sorted(set(range(12)) - block) for block in blocks]


def test_low_shot_draws_differ_and_repeat() -> None:
    train = drawn(120, 0)
    draws = low_shot(train, train, 1.0, 2, PROTOCOL, num_classes=20, seed=0)
    assert len(set(draws)) == 3
    assert draws == low_shot(train, train, 1.0, 2, PROTOCOL, num_classes=20, seed=0)
    # All positives and all negatives leave nothing to draw.
    certain = train.without_difficult()
    whole = 100 * image_ap(svm_class.fit_and_decide(certain, train, 1.0, PROTOCOL), train, metric="voc-area")
    assert low_shot(train, train, 1.0, 40, PROTOCOL, num_classes=20, seed=0) == pytest.approx([whole] * 3, abs=0.5)


@pytest.mark.parametrize(("num_classes", "negatives_per_positive"), [(20, 19), (3, 2), (1, 1)])
def test_few_images_are_as_many_negative_ones_for_each_other_class(
    num_classes: int, negatives_per_positive: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[Examples] = []

    def fit_and_decide(train: Examples, test: Examples, cost: float, protocol: SvmProtocol) -> np.ndarray:
        trained.append(train)
        return np.zeros(len(test.presence))

    monkeypatch.setattr(svm_class, "fit_and_decide", fit_and_decide)
    train = drawn(120, 0)
    for shots in (1, 2):
        low_shot(train, train, 1.0, shots, PROTOCOL, num_classes=num_classes, seed=0)
    for shots, images in zip((1, 1, 1, 2, 2, 2), trained, strict=True):
        assert images.presence.tolist() == [PRESENT] * shots + [ABSENT] * negatives_per_positive * shots
    # Fewer images are among more.
    assert {tuple(row) for row in trained[0].features} < {tuple(row) for row in trained[3].features}


def test_a_class_whose_other_images_are_all_difficult_has_no_low_shot() -> None:
    test = drawn(30, 1)
    train = drawn(30, 0)
    train = Examples(train.features, np.where(train.presence == PRESENT, PRESENT, DIFFICULT))
    scores, few = score_class(train, test, PROTOCOL, num_classes=20, seed=0)
    assert few == {}
    assert 0 < scores["ap"] <= 100
