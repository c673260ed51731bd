"""VOC07 classification: one linear SVM per class on frozen features, and the mean of their average precisions.

N: images, C: features, K: classes.
"""

from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch

from benchmarks.classification.class_precision import precision_details
from benchmarks.classification.data import SquashedView
from benchmarks.classification.extraction import extract_folder
from benchmarks.classification.features import FrozenBackbone, freeze, mean_norm
from benchmarks.classification.svm_class import Examples, score_class, unit_length
from benchmarks.classification.svm_images import (
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
from benchmarks.result import Metric
from benchmarks.run_folder import claim_folder
from mocobench.runtime.distributed import gather_objects, rank, world_size
from mocobench.runtime.progress import progress, say
from mocobench.runtime.seeds import derive_seed
from transfer.backbone import Backbone


def run_svm(backbone: Backbone, data: Path, protocol: SvmProtocol, context: RunContext) -> Measurement:
    """Train on the training splits, score on the test splits: mAP with all images, and with few positive ones.

    `map` is of areas below the curves, as the authors and those who print VOC07 numbers have it, `map_11_point` of the
    same decision values by VOC2007's own metric. The ranks share the features and the classes.

    Classes with fewer positive or negative images than folds, or none to test on, are left out of the mean, and said.

    Raises:
        UserError: bad data, a folder of another run, or no class that can be measured.
    """
    sets = read_images(data, protocol, context)
    claim_folder(backbone, protocol, context, sets.identity)
    measurable_classes(sets, protocol)  # stops before the long work where there is none
    frozen = freeze(backbone, device=context.device, precision=context.precision, grid=protocol.grid)
    sets, train_features, test_features = extract_sets(frozen, sets, data, protocol, context)
    chosen, classes = measurable_classes(sets, protocol), sets.train.classes
    left_out = [name for label, name in enumerate(classes) if label not in chosen]
    if left_out:
        say(f"left out, with too few positive or negative images: {', '.join(left_out)}")
    train, test = unit_length(train_features), unit_length(test_features)
    presences = presence(sets.train), presence(sets.test)  # N x K
    own = {}
    for label in progress(chosen[rank() :: world_size()], label="SVMs", unit="class"):
        of_train, of_test = Examples(train, presences[0][:, label]), Examples(test, presences[1][:, label])
        seed = derive_seed(context.seed, "low-shot", label)
        own[label] = score_class(of_train, of_test, protocol, num_classes=len(classes), seed=seed)
    frozen.require_unmoved()
    of_label = {label: scores for shared in gather_objects(own) for label, scores in shared.items()}
    per_class = {classes[label]: of_label[label][0] for label in chosen}
    few = {
        shots: draws
        for shots in protocol.shots
        if (draws := [of_label[label][1][shots] for label in chosen if shots in of_label[label][1]])
    }
    spread = {f"map_{shots}": draws_over_classes(draws, shots) for shots, draws in few.items()}
    scores = {"map": "ap", "map_11_point": "ap_11_point"}
    metrics = {name: mean(found[score] for found in per_class.values()) for name, score in scores.items()}
    metrics |= {name: mean(found["draws"]) for name, found in spread.items()}
    metric_info = {"map": Metric("mAP"), "map_11_point": Metric("11-point mAP")}
    metric_info |= {f"map_{shots}": Metric(f"mAP, {shots} pos.") for shots in few}
    details = {
        "feature_norm": mean_norm(torch.from_numpy(test_features)),
        **precision_details(per_class, context),
        "left_out": left_out,
        "low_shot": spread,
    }
    return Measurement(metrics, metric_info, sets.identity, details)


def extract_sets(
    frozen: FrozenBackbone, sets: DetectionData, data: Path, protocol: SvmProtocol, context: RunContext
) -> tuple[DetectionData, np.ndarray, np.ndarray]:
    """Features (N, C) of the training and of the test images, and the sets that they are of.

    Those are the sets given, but for images that cannot be read and are left out, which is said.

    Raises:
        UserError: as `extract_folder`.
    """
    view, found = SquashedView(protocol.test_resize, protocol.image_size), []
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
