"""imagenet-linear by logistic regression: features once, the strength chosen on images held out of training."""

from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.classification.confusion import class_details
from benchmarks.classification.data import Batch, CenterView, read_splits
from benchmarks.classification.extraction import extract_splits
from benchmarks.classification.features import LEAST_NORM, freeze, mean_norm
from benchmarks.classification.held_out import hold_out, require_some_to_hold_out
from benchmarks.classification.logistic import LogisticFit, PrincipalAxes, fit_logistic, principal_axes
from benchmarks.classification.protocol import LogisticProtocol
from benchmarks.context import Measurement, RunContext
from benchmarks.result import Metric
from benchmarks.run_folder import claim_folder
from mocobench.runtime.memory import out_of_memory_means
from mocobench.runtime.progress import progress
from transfer.backbone import Backbone

LESS_MEMORY = "use --device cpu, or another --protocol, whose heads learn from batches"
METRIC_INFO = {"top1": Metric("top-1"), "top5": Metric("top-5")}


def run_logistic(backbone: Backbone, data: Path, protocol: LogisticProtocol, context: RunContext) -> Measurement:
    """Classify `data/val` by a regression on `data/train`: top-1 and top-5 accuracy.

    Raises:
        UserError: bad data, a folder of another run, nothing to hold out, an optimum that is not reached, or too little
            memory.
    """
    splits = read_splits(data)
    claim_folder(backbone, protocol, context, splits.identity)
    require_some_to_hold_out(splits.train.labels)
    frozen = freeze(backbone, device=context.device, precision=context.precision)
    center = CenterView(protocol.test_resize, protocol.image_size)
    splits, train, val = extract_splits(frozen, splits, center, context)
    scale, num_classes = max(mean_norm(train[0]), LEAST_NORM), len(splits.train.classes)
    train = (train[0] / scale, train[1])  # the features as they were are not kept
    with out_of_memory_means(f"logistic regression on {len(splits.train)} images", remedy=LESS_MEMORY):
        chosen = choose_and_fit(train, num_classes, protocol, context)
    frozen.require_unmoved()
    fit = chosen.fit
    best_classes = fit.predict(val[0] / scale).topk(min(5, num_classes), dim=1).indices
    hits = best_classes == val[1][:, None]
    metrics = {"top1": 100 * hits[:, 0].sum().item() / len(hits), "top5": 100 * hits.sum().item() / len(hits)}
    details = {
        "feature_norm": mean_norm(val[0]),
        "l2": chosen.l2,
        "strengths": chosen.strengths,
        "objective": fit.objective,
        "num_evaluations": fit.num_evaluations,
        **class_details(best_classes[:, 0], val[1], splits.train.classes, context),
    }
    return Measurement(metrics, METRIC_INFO, splits.identity, details)


@dataclass(frozen=True)
class Chosen:
    """The fit on all training images at the strength `l2`, and what each strength got on the images held out."""

    fit: LogisticFit
    l2: float
    strengths: list[dict[str, float]]


def choose_and_fit(train: Batch, num_classes: int, protocol: LogisticProtocol, context: RunContext) -> Chosen:
    """Choose the strength on images held out, then fit all: features (N, C) and labels (N,).

    Raises:
        UserError: an optimum that is not reached.
    """
    trained, held = hold_out(train[1], fraction=protocol.held_out, seed=context.seed)
    features, labels = (tensor.to(context.device) for tensor in train)
    part, held_out = principal_axes(features[trained]), (features[held], labels[held])
    strengths, fit = [], None
    for l2 in progress(protocol.strengths, label="strengths", unit="fit"):
        fit = _fit(part, labels[trained], l2, num_classes, protocol, start=fit)
        strengths.append({"l2": l2, "held_out_top1": ranked_hits(fit, held_out, k=1).double().mean().item() * 100})
    best = max(strengths, key=lambda choice: choice["held_out_top1"])["l2"]  # of equals the first
    fit = _fit(principal_axes(features), labels, best, num_classes, protocol, start=fit)
    return Chosen(fit, best, strengths)


def _fit(
    features: PrincipalAxes,
    labels: torch.Tensor,
    l2: float,
    num_classes: int,
    protocol: LogisticProtocol,
    *,
    start: LogisticFit | None,
) -> LogisticFit:
    return fit_logistic(
        features,
        labels,
        num_classes=num_classes,
        l2=l2,
        tolerance=protocol.tolerance,
        max_steps=protocol.max_steps,
        start=start,
    )


def ranked_hits(fit: LogisticFit, labelled: Batch, *, k: int) -> torch.Tensor:
    """Whether the label is the best, second best, ... k-th best class: bool (N, k), on the CPU."""
    best = fit.predict(labelled[0].cpu()).topk(k, dim=1).indices
    return best == labelled[1].cpu()[:, None]
