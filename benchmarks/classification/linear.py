"""The linear probe: one linear classifier on frozen features (MoCo v1, section 4.1; the authors' main_lincls.py)."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.classification.data import Batch, CenterView, LabelledSplits, RandomView, image_batches, read_splits
from benchmarks.classification.features import FEATURE_BATCH, FrozenBackbone, freeze, mean_norm
from benchmarks.classification.protocol import LinearProtocol
from benchmarks.context import Measurement, RunContext
from benchmarks.result import Metric
from mocobench.runtime.errors import UserError
from mocobench.runtime.progress import progress
from mocobench.runtime.seeds import torch_generator
from transfer.backbone import Backbone

METRIC_INFO = {"top1": Metric("top-1"), "top5": Metric("top-5")}
EVALUATION_BLOCK = 4096


@dataclass(frozen=True)
class ProbeRun:
    """A trained classifier and one record per epoch: epoch (from 1), learning_rate, loss, top1, top5 in percent."""

    classifier: nn.Linear
    curve: tuple[dict[str, float], ...]


def run_linear(backbone: Backbone, data: Path, protocol: LinearProtocol, context: RunContext) -> Measurement:
    """Probe a backbone on `data/train`, `data/val`; the metrics are those of the last epoch.

    Raises:
        UserError: bad data, or a loss that is not finite.
    """
    splits = read_splits(data)
    frozen = freeze(backbone, device=context.device, precision=context.precision)
    center = CenterView(protocol.test_resize, protocol.image_size)
    # The validation crop never changes and neither does the backbone: its features are computed once, exactly.
    val = frozen.extract_folder(splits.val, center, context, label="val features")
    feature_norm = mean_norm(val[0])
    if protocol.train_views == "center-once":
        train = frozen.extract_folder(splits.train, center, context, label="train features")
        epoch_batches = cached_batches(train, batch_size=protocol.batch_size, seed=context.seed)
    else:
        epoch_batches = augmented_batches(frozen, splits, protocol, context)
    run = fit_probe(
        epoch_batches,
        val,
        protocol,
        num_images=len(splits.train.paths),
        num_classes=len(splits.train.classes),
        feature_norm=feature_norm,
        device=context.device,
        seed=context.seed,
    )
    frozen.require_unmoved()
    last = run.curve[-1]
    details = {"feature_norm": feature_norm, "curve": list(run.curve), "best_epoch": best_epoch(run.curve)}
    metrics = {name: last[name] for name in METRIC_INFO}
    return Measurement(metrics, METRIC_INFO, splits.identity, details)


def best_epoch(curve: tuple[dict[str, float], ...]) -> dict[str, Any]:
    """The epoch with the best top-1, labelled as what it is."""
    best = max(curve, key=lambda record: record["top1"])
    return {"note": "chosen on the validation images, so not the result", **best}


def epoch_order(num_images: int, *, seed: int, epoch: int) -> torch.Tensor:
    """The order of the training images in one epoch, a permutation (num_images,)."""
    return torch.randperm(num_images, generator=torch_generator(seed, "order", epoch))


def cached_batches(train: Batch, *, batch_size: int, seed: int) -> Callable[[int], Iterator[Batch]]:
    """Batches of cached features (N, C) and labels (N,) for an epoch, in that epoch's order."""
    features, labels = train

    def of_epoch(epoch: int) -> Iterator[Batch]:
        for chosen in epoch_order(len(labels), seed=seed, epoch=epoch).split(batch_size):
            yield features[chosen], labels[chosen]

    return of_epoch


def augmented_batches(
    frozen: FrozenBackbone, splits: LabelledSplits, protocol: LinearProtocol, context: RunContext
) -> Callable[[int], Iterator[Batch]]:
    """Batches of features of newly drawn views for an epoch, in that epoch's order."""
    view = RandomView(protocol.image_size, protocol.crop_scale, protocol.crop_ratio, protocol.flip_probability)

    def of_epoch(epoch: int) -> Iterator[Batch]:
        images = image_batches(
            splits.train,
            epoch_order(len(splits.train.paths), seed=context.seed, epoch=epoch).tolist(),
            view=view,
            batch_size=protocol.batch_size,
            seed=context.seed,
            epoch=epoch,
            num_workers=context.num_workers,
        )
        for batch, labels in images:
            # The optimizer's batch may be too large for one forward pass.
            yield torch.cat([frozen.features(part) for part in batch.split(FEATURE_BATCH)]), labels

    return of_epoch


def learning_rate(protocol: LinearProtocol, epoch: int) -> float:
    """The learning rate of an epoch, counted from 0: decayed at each of `decay_epochs` that has been reached."""
    num_decays = sum(epoch >= decay for decay in protocol.decay_epochs)
    return protocol.learning_rate * protocol.decay_factor**num_decays


def make_classifier(feature_size: int, num_classes: int, *, init_std: float, seed: int) -> nn.Linear:
    """A linear classifier with weights ~ N(0, init_std) and bias 0."""
    classifier = nn.utils.skip_init(nn.Linear, feature_size, num_classes)
    with torch.no_grad():
        classifier.weight.normal_(0.0, init_std, generator=torch_generator(seed, "classifier"))
        classifier.bias.zero_()
    return classifier


def fit_probe(
    epoch_batches: Callable[[int], Iterable[Batch]],
    val: Batch,
    protocol: LinearProtocol,
    *,
    num_images: int,
    num_classes: int,
    feature_norm: float,
    device: torch.device,
    seed: int,
) -> ProbeRun:
    """Train a classifier by SGD on cross-entropy and evaluate it after every epoch.

    `epoch_batches(epoch)` yields features (N, C) and labels (N,); `val` is features (V, C) and labels (V,).

    Raises:
        UserError: the loss is not finite.
    """
    classifier = make_classifier(val[0].shape[1], num_classes, init_std=protocol.init_std, seed=seed).to(device)
    optimizer = torch.optim.SGD(
        classifier.parameters(),
        lr=protocol.learning_rate,
        momentum=protocol.momentum,
        weight_decay=protocol.weight_decay,
    )
    curve = []
    with progress(total=protocol.epochs * num_images, label="linear probe", unit="image") as bar:
        for epoch in range(protocol.epochs):
            rate = learning_rate(protocol, epoch)
            optimizer.param_groups[0]["lr"] = rate
            total = 0.0
            for features, labels in epoch_batches(epoch):
                loss = _step(classifier, optimizer, features.to(device), labels.to(device))
                if not math.isfinite(loss):
                    raise UserError(_divergence(loss, epoch=epoch, rate=rate, feature_norm=feature_norm))
                total += loss * len(labels)
                bar.update(len(labels))
            accuracies = topk_accuracies(classifier, val, device=device)
            curve.append({"epoch": epoch + 1, "learning_rate": rate, "loss": total / num_images, **accuracies})
            bar.set_postfix(epoch=epoch + 1, loss=f"{total / num_images:.3g}", top1=f"{accuracies['top1']:.1f}")
    return ProbeRun(classifier, tuple(curve))


def _step(
    classifier: nn.Linear, optimizer: torch.optim.Optimizer, features: torch.Tensor, labels: torch.Tensor
) -> float:
    loss = F.cross_entropy(classifier(features), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def _divergence(loss: float, *, epoch: int, rate: float, feature_norm: float) -> str:
    return (
        f"epoch {epoch + 1}: expected a finite loss, found {loss}; a learning rate of {rate:g} is probably too high "
        f"for features of mean norm {feature_norm:.3g}: lower --learning-rate"
    )


@torch.no_grad()
def topk_accuracies(classifier: nn.Linear, val: Batch, *, device: torch.device) -> dict[str, float]:
    """Top-1 and top-5 accuracy in percent; with fewer than five classes top-5 counts them all, so it is 100."""
    features, labels = val
    k = min(5, classifier.out_features)
    correct = {"top1": 0, "top5": 0}
    for block, block_labels in zip(features.split(EVALUATION_BLOCK), labels.split(EVALUATION_BLOCK), strict=True):
        best = classifier(block.to(device)).topk(k, dim=1).indices.cpu()  # V x k, best first
        hits = best == block_labels[:, None]
        correct["top1"] += int(hits[:, 0].sum())
        correct["top5"] += int(hits.any(dim=1).sum())
    return {name: 100 * count / len(labels) for name, count in correct.items()}
