"""VOC07 classification: one linear SVM per class on frozen features, mean average precision over 11 recalls.

N: images, C: channels, K: classes.
"""

from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch

from benchmarks.classification.class_precision import precision_details
from benchmarks.classification.data import CenterView
from benchmarks.classification.extraction import extract_folder
from benchmarks.classification.features import LEAST_NORM, FrozenBackbone, freeze, mean_norm
from benchmarks.classification.svm_images import (
    ABSENT,
    DIFFICULT,
    PRESENT,
    as_folder,
    measurable_classes,
    presence,
    read_images,
    say_skipped,
    without_images,
)
from benchmarks.classification.svm_protocol import SvmProtocol
from benchmarks.context import Measurement, RunContext
from benchmarks.detection.records import DetectionData
from benchmarks.detection.voc_metric import Outcome, average_precision
from benchmarks.result import Metric
from mocobench.runtime.distributed import gather_objects, rank, world_size
from mocobench.runtime.progress import progress, say
from mocobench.runtime.seeds import derive_seed
from transfer.backbone import Backbone

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

    Classes with fewer positive or negative images than folds, or none to test on, are left out of the mean, and said.

    Raises:
        UserError: bad data, or no class that can be measured.
    """
    sets = read_images(data, protocol, context)
    measurable_classes(sets, protocol)  # stops before the long work where there is none
    frozen = freeze(backbone, device=context.device, precision=context.precision)
    sets, train_features, test_features = extract_sets(frozen, sets, data, protocol, context)
    chosen, classes = measurable_classes(sets, protocol), sets.train.classes
    left_out = [name for label, name in enumerate(classes) if label not in chosen]
    if left_out:
        say(f"left out, with too few positive or negative images: {', '.join(left_out)}")
    train, test = unit_length(train_features), unit_length(test_features)
    presences = presence(sets.train), presence(sets.test)  # N x K
    own = {}
    for label in progress(chosen[rank() :: world_size()], label="SVMs", unit="class"):
        of_train, of_test = (
            Examples(values, known[:, label])[known[:, label] != DIFFICULT]
            for values, known in ((train, presences[0]), (test, presences[1]))
        )
        own[label] = score_class(of_train, of_test, label, protocol, seed=context.seed)
    frozen.require_unmoved()
    of_label = {label: scores for shared in gather_objects(own) for label, scores in shared.items()}
    per_class = {classes[label]: of_label[label][0] for label in chosen}
    few = {
        shots: draws
        for shots in protocol.shots
        if (draws := [of_label[label][1][shots] for label in chosen if shots in of_label[label][1]])
    }
    spread = {f"map_{shots}": draws_over_classes(draws, shots) for shots, draws in few.items()}
    metrics = {"map": mean(found["ap"] for found in per_class.values())}
    metrics |= {name: mean(found["draws"]) for name, found in spread.items()}
    metric_info = {"map": Metric("mAP")} | {f"map_{shots}": Metric(f"mAP, {shots} pos.") for shots in few}
    details = {
        "feature_norm": mean_norm(torch.from_numpy(test_features)),
        **precision_details(per_class, context),
        "left_out": left_out,
        "low_shot": spread,
    }
    return Measurement(metrics, metric_info, sets.identity, details)


def unit_length(features: np.ndarray) -> np.ndarray:
    """Features (N, C) over their norms; zeros stay zeros."""
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), LEAST_NORM)


def extract_sets(
    frozen: FrozenBackbone, sets: DetectionData, data: Path, protocol: SvmProtocol, context: RunContext
) -> tuple[DetectionData, np.ndarray, np.ndarray]:
    """Features (N, C) of the training and of the test images, and the sets that they are of.

    Those are the sets given, but for images that cannot be read and are left out, which is said.

    Raises:
        UserError: as `extract_folder`.
    """
    view, found = CenterView(protocol.test_resize, protocol.image_size), []
    for images, label in ((sets.train, "train features"), (sets.test, "test features")):
        folder = as_folder(data, images)
        found.append(extract_folder(frozen, folder, view, context, label=label))
    sets = without_images(sets, train=found[0].left_out, test=found[1].left_out)
    say_skipped(sets)
    return sets, found[0].features.numpy(), found[1].features.numpy()


def draws_over_classes(draws: list[list[float]], shots: int) -> dict[str, Any]:
    """Of each class's average precisions draw by draw: their means over classes, which are said with their spread."""
    of_draw = [mean(aps) for aps in zip(*draws, strict=True)]
    std = stdev(of_draw) if len(of_draw) > 1 else 0.0
    say(f"low-shot, {shots} positive: mAP {mean(of_draw):.2f} +- {std:.2f} over {len(of_draw)} draws")
    return {"std": std, "classes": len(draws), "draws": of_draw}


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
