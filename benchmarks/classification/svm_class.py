"""The linear SVMs of one class: its cost by cross-validation, and the precision with all images and with few.

N: images, C: features. The steps are those of the code of Goyal et al. 2019, fair_self_supervision_benchmark, files of
which are named below. An image whose objects of the class are all difficult is a negative one in cross-validation and
in training with all images (extra_scripts/create_voc_data_files.py gives it the label that train_svm_kfold.py has for
negative ones); it is left out of the test (test_svm.py) and of few-image training (`get_cls_feats_labels` of
svm_helper.py).
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.classification.svm_images import ABSENT, DIFFICULT, PRESENT
from benchmarks.classification.svm_protocol import SvmProtocol
from benchmarks.detection.voc_metric import Outcome, average_precision
from mocobench.runtime.seeds import derive_seed

if TYPE_CHECKING:
    from sklearn.svm import LinearSVC

ADDED_TO_NORMS = 1e-5  # svm_helper.py, normalize_features


@dataclass(frozen=True)
class Examples:
    """Features (N, C) and each image's presence of a class (N,), PRESENT, DIFFICULT or ABSENT."""

    features: np.ndarray
    presence: np.ndarray

    def __getitem__(self, chosen: np.ndarray) -> "Examples":
        return Examples(self.features[chosen], self.presence[chosen])

    @property
    def targets(self) -> np.ndarray:
        """What an SVM is trained on (N,): 1 for images that show the class, -1 for all others."""
        return np.where(self.presence == PRESENT, 1, -1)

    @property
    def num_present(self) -> int:
        return int((self.presence == PRESENT).sum())

    def without_difficult(self) -> "Examples":
        """The images of which it is certain whether they show the class."""
        return self[self.presence != DIFFICULT]


def unit_length(features: np.ndarray) -> np.ndarray:
    """Features (N, C) in float64 over their norms, a little less than 1 long; zeros stay zeros."""
    features = features.astype(np.float64)
    return features / (np.linalg.norm(features, axis=1, keepdims=True) + ADDED_TO_NORMS)


def score_class(
    train: Examples, test: Examples, protocol: SvmProtocol, *, num_classes: int, seed: int
) -> tuple[dict[str, Any], dict[int, list[float]]]:
    """What a record keeps of a class, and the average precision of each low-shot draw by its number of images.

    Precisions in percent: `ap` is the area below the curve, `ap_11_point` VOC2007's mean over 11 recalls.
    """
    test, cost = test.without_difficult(), choose_cost(train, protocol)
    values = fit_and_decide(train, test, cost, protocol)
    num_shown = test.num_present
    scores = {
        "ap": 100 * image_ap(values, test, metric="voc-area"),
        "ap_11_point": 100 * image_ap(values, test, metric="voc-11-point"),
        "cost": cost,
        "train_images": train.num_present,
        "test_images": num_shown,
        "test_percent": 100 * num_shown / len(test.presence),
    }
    few = {
        shots: low_shot(train, test, cost, shots, protocol, num_classes=num_classes, seed=seed)
        for shots in protocol.shots
        if shots <= train.num_present and ABSENT in train.presence
    }
    return scores, few


def choose_cost(train: Examples, protocol: SvmProtocol) -> float:
    """The cost with the best mean average precision over the folds; of equals the first.

    The folds are blocks of the list with equal shares of positives, and the precision is scikit-learn's, without an
    envelope (train_svm_kfold.py, cross_val_score; test_svm.py, get_chosen_costs).
    """
    from sklearn.model_selection import cross_val_score

    keywords = {"cv": protocol.folds, "scoring": "average_precision", "error_score": "raise"}
    with _stopped_early_is_fine():
        scores = [
            cross_val_score(make_machine(cost, protocol), train.features, train.targets, **keywords).mean()
            for cost in protocol.costs
        ]
    return protocol.costs[int(np.argmax(scores))]


def make_machine(cost: float, protocol: SvmProtocol) -> "LinearSVC":
    """An untrained SVM as the authors have it; the authors' draws its order of images anew in every run."""
    from sklearn.svm import LinearSVC

    return LinearSVC(
        C=cost,
        class_weight={1: protocol.positive_weight, -1: 1.0},
        tol=protocol.tolerance,
        max_iter=protocol.max_steps,
        random_state=0,
        dual=True,
    )


def fit_and_decide(train: Examples, test: Examples, cost: float, protocol: SvmProtocol) -> np.ndarray:
    """Decision values (N,) of the test images, by an SVM trained on `train`."""
    with _stopped_early_is_fine():
        machine = make_machine(cost, protocol).fit(train.features, train.targets)
    values: np.ndarray = machine.decision_function(test.features)
    return values


@contextmanager
def _stopped_early_is_fine() -> Iterator[None]:
    """Stopping at `max_steps` is part of the protocol."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def image_ap(values: np.ndarray, test: Examples, *, metric: str) -> float:
    """Average precision, from 0 to 1, of images ranked by their decision values (N,); one of voc_metric's METRICS.

    `voc-area` is what the authors call AP: the area below the precision envelope (svm_helper.py, calculate_ap).
    """
    true = (test.presence == PRESENT)[np.argsort(-values, kind="stable")]
    num_true = np.cumsum(true)
    outcome = Outcome(true, num_true / test.num_present, num_true / np.arange(1, len(true) + 1))
    return average_precision(outcome, metric=metric)


def low_shot(
    train: Examples, test: Examples, cost: float, shots: int, protocol: SvmProtocol, *, num_classes: int, seed: int
) -> list[float]:
    """The average precision (area) in percent of each draw of `shots` positive images and negative ones for them.

    For each class but this, or for this alone where there is no other, a draw has `shots` negative images
    (create_voc_low_shot_samples.py). None is difficult.
    """
    found = []
    for draw in range(protocol.draws):
        order = np.random.default_rng(derive_seed(seed, "shots", draw)).permutation(len(train.presence))
        positive, negative = (order[train.presence[order] == kind] for kind in (PRESENT, ABSENT))
        # The first of one order: fewer images are always among more.
        chosen = np.concatenate([positive[:shots], negative[: max(num_classes - 1, 1) * shots]])
        values = fit_and_decide(train[chosen], test, cost, protocol)
        found.append(100 * image_ap(values, test, metric="voc-area"))
    return found
