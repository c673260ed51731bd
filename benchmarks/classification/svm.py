"""VOC07 classification: one linear SVM per class on frozen features, mean average precision over 11 recalls.

N: images, C: channels, K: classes. An image's presence of a class is PRESENT, ABSENT, or DIFFICULT where all of its
objects of the class are; such an image is neither trained nor scored on for that class, as in the VOC devkit.
"""

from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from benchmarks.classification.class_precision import precision_details
from benchmarks.classification.data import CenterView
from benchmarks.classification.extraction import extract_folder
from benchmarks.classification.features import FrozenBackbone, freeze, mean_norm
from benchmarks.classification.svm_protocol import SvmProtocol
from benchmarks.context import Measurement, RunContext
from benchmarks.detection.records import DetectionSet
from benchmarks.detection.voc_data import read_voc
from benchmarks.detection.voc_metric import Outcome, average_precision
from benchmarks.result import Metric
from mocobench.runtime.distributed import gather_objects, rank, world_size
from mocobench.runtime.errors import UserError
from mocobench.runtime.images import ImageFolder
from mocobench.runtime.progress import progress, say
from mocobench.runtime.seeds import derive_seed
from transfer.backbone import Backbone

PRESENT, DIFFICULT, ABSENT = 1, 0, -1
NEGATIVES_PER_POSITIVE = 19  # of low-shot training sets


@dataclass(frozen=True)
class Examples:
    """Features (N, C) of unit length and whether each image shows a class (N,), PRESENT or ABSENT."""

    features: np.ndarray
    presence: np.ndarray

    def __getitem__(self, chosen: np.ndarray) -> "Examples":
        return Examples(self.features[chosen], self.presence[chosen])


def run_svm(backbone: Backbone, data: Path, protocol: SvmProtocol, context: RunContext) -> Measurement:
    """Train on the training splits, score on the test splits: mAP with all images, and with few positive ones.

    The ranks share the features and the classes.

    Classes with fewer positive images than folds, or none to test on, are left out of the mean, and said.

    Raises:
        UserError: bad data, or no class that can be measured.
    """
    sets = read_voc(
        data,
        train_splits=protocol.train_splits,
        test_splits=protocol.test_splits,
        classes="voc",
        on_bad_annotation=context.on_bad_annotation,
    )
    frozen = freeze(backbone, device=context.device, precision=context.precision)
    presences = presence(sets.train), presence(sets.test)  # N x K
    chosen = measurable_classes(*presences, sets.train.classes, protocol)
    features = [
        _features(frozen, images, data, protocol, context, label)
        for images, label in ((sets.train, "train features"), (sets.test, "test features"))
    ]
    train, test = (values / np.linalg.norm(values, axis=1, keepdims=True) for values in features)
    own = {}
    for label in progress(chosen[rank() :: world_size()], label="SVMs", unit="class"):
        of_train, of_test = (
            Examples(values, known[:, label])[known[:, label] != DIFFICULT]
            for values, known in ((train, presences[0]), (test, presences[1]))
        )
        own[label] = score_class(of_train, of_test, label, protocol, seed=context.seed)
    frozen.require_unmoved()
    of_label = {label: scores for shared in gather_objects(own) for label, scores in shared.items()}
    per_class: dict[str, dict[str, Any]] = {}
    few: dict[int, list[list[float]]] = {shots: [] for shots in protocol.shots}
    for label in chosen:
        scores, draws_of = of_label[label]
        per_class[sets.train.classes[label]] = scores
        for shots, draws in draws_of.items():
            few[shots].append(draws)
    left_out = [name for name in sets.train.classes if name not in per_class]
    metrics = {"map": mean(found["ap"] for found in per_class.values())}
    metric_info, spread = {"map": Metric("mAP")}, {}
    for shots, draws in few.items():
        if draws:
            of_draw = [mean(aps) for aps in zip(*draws, strict=True)]  # the mean over classes, draw by draw
            metrics[f"map_{shots}"], metric_info[f"map_{shots}"] = mean(of_draw), Metric(f"mAP, {shots} pos.")
            std = stdev(of_draw) if len(of_draw) > 1 else 0.0
            spread[f"map_{shots}"] = {"std": std, "classes": len(draws), "draws": of_draw}
            say(f"low-shot, {shots} positive: mAP {mean(of_draw):.2f} +- {std:.2f} over {len(of_draw)} draws")
    details = {
        "feature_norm": _mean_norm(features[1]),
        **precision_details(per_class, context),
        "left_out": left_out,
        "low_shot": spread,
    }
    return Measurement(metrics, metric_info, sets.identity, details)


def score_class(
    train: Examples, test: Examples, label: int, protocol: SvmProtocol, *, seed: int
) -> tuple[dict[str, Any], dict[int, list[float]]]:
    """What a record keeps of a class, and the average precision of each low-shot draw by its number of images."""
    cost = choose_cost(train, protocol, seed=derive_seed(seed, "folds", label))
    ap = 100 * fit_and_score(train, test, cost, protocol)
    num_shown = _num_present(test)
    scores = {
        "ap": ap,
        "cost": cost,
        "train_images": _num_present(train),
        "test_images": num_shown,
        "test_percent": 100 * num_shown / len(test.presence),
    }
    draw_seed = derive_seed(seed, "low-shot", label)
    few = {
        shots: low_shot(train, test, cost, shots, protocol, seed=draw_seed)
        for shots in protocol.shots
        if shots <= scores["train_images"]
    }
    return scores, few


def presence(images: DetectionSet) -> np.ndarray:
    """Of every class in every image (N, K)."""
    found = np.full((len(images.images), len(images.classes)), ABSENT)
    for row, image in zip(found, images.images, strict=True):
        row[image.labels[image.difficult]] = DIFFICULT
        row[image.labels[~image.difficult]] = PRESENT
    return found


def measurable_classes(
    train: np.ndarray, test: np.ndarray, classes: tuple[str, ...], protocol: SvmProtocol
) -> list[int]:
    """Classes with positive images for each fold and for the test; the others are said.

    Raises:
        UserError: there is none.
    """
    enough = ((train == PRESENT).sum(axis=0) >= protocol.folds) & ((test == PRESENT).sum(axis=0) >= 1)
    chosen = np.flatnonzero(enough).tolist()
    if not chosen:
        raise UserError(
            f"voc-svm: expected a class with {protocol.folds} positive training images and one to test on, found none"
        )
    if len(chosen) < len(classes):
        others = ", ".join(name for label, name in enumerate(classes) if label not in chosen)
        say(f"left out, with too few positive images: {others}")
    return chosen


def choose_cost(train: Examples, protocol: SvmProtocol, *, seed: int) -> float:
    """The cost with the best mean average precision over folds with equal shares of positives; of equals the least."""
    from sklearn.model_selection import StratifiedKFold

    folds = StratifiedKFold(protocol.folds, shuffle=True, random_state=seed % 2**32)
    splits = list(folds.split(train.features, train.presence))
    scores = {
        cost: mean(fit_and_score(train[rest], train[fold], cost, protocol) for rest, fold in splits)
        for cost in sorted(protocol.costs)
    }
    return max(scores, key=lambda cost: scores[cost])


def fit_and_score(train: Examples, test: Examples, cost: float, protocol: SvmProtocol) -> float:
    """The average precision, from 0 to 1, of an SVM trained on `train`."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    machine = LinearSVC(
        C=cost,
        class_weight={PRESENT: protocol.positive_weight, ABSENT: 1.0},
        tol=protocol.tolerance,
        max_iter=protocol.max_steps,
        random_state=0,
        dual=True,
    )
    with warnings.catch_warnings():
        # As the authors' own: stopping at `max_steps` is part of the protocol.
        warnings.simplefilter("ignore", ConvergenceWarning)
        machine.fit(train.features, train.presence)
    return image_ap(machine.decision_function(test.features), test.presence == PRESENT)


def image_ap(scores: np.ndarray, present: np.ndarray) -> float:
    """VOC2007's 11-point average precision of images ranked by their scores (N,), of which some show the class."""
    true = present[np.argsort(-scores, kind="stable")]
    num_true = np.cumsum(true)
    return average_precision(
        Outcome(true, num_true / present.sum(), num_true / np.arange(1, len(true) + 1)), metric="voc-11-point"
    )


def low_shot(
    train: Examples, test: Examples, cost: float, shots: int, protocol: SvmProtocol, *, seed: int
) -> list[float]:
    """The average precision in percent of each draw of `shots` positive images and 19 times as many negative ones."""
    found = []
    for draw in range(protocol.draws):
        order = np.random.default_rng(derive_seed(seed, "shots", draw)).permutation(len(train.presence))
        present = train.presence[order] == PRESENT
        # The first of one order: fewer images are always among more.
        chosen = np.concatenate([order[present][:shots], order[~present][: NEGATIVES_PER_POSITIVE * shots]])
        found.append(100 * fit_and_score(train[chosen], test, cost, protocol))
    return found


def _num_present(examples: Examples) -> int:
    return int((examples.presence == PRESENT).sum())


def _features(
    frozen: FrozenBackbone, images: DetectionSet, data: Path, protocol: SvmProtocol, context: RunContext, label: str
) -> np.ndarray:
    paths = tuple(image.path for image in images.images)
    folder = ImageFolder(data, paths, labels=(0,) * len(paths), classes=("any",))
    view = CenterView(protocol.test_resize, protocol.image_size)
    features: np.ndarray = extract_folder(frozen, folder, view, context, label=label).features.numpy()
    return features


def _mean_norm(features: np.ndarray) -> float:
    import torch

    return mean_norm(torch.from_numpy(features))
