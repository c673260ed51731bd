"""The linear probe: linear classifiers on frozen features (MoCo v1, section 4.1; the authors' main_lincls.py)."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch

from benchmarks.classification.data import Batch, CenterView, RandomView, image_batches, read_splits
from benchmarks.classification.features import FEATURE_BATCH, FrozenBackbone, freeze, mean_norm
from benchmarks.classification.heads import LinearHeads, Solver, accuracy_by_class, make_classifier, topk_accuracies
from benchmarks.classification.held_out import hold_out
from benchmarks.classification.protocol import LinearProtocol
from benchmarks.context import Measurement, RunContext
from benchmarks.result import Metric
from mocobench.runtime.errors import UserError
from mocobench.runtime.images import ImageFolder
from mocobench.runtime.progress import progress
from mocobench.runtime.seeds import torch_generator
from transfer.backbone import Backbone

METRIC_INFO = {"top1": Metric("top-1"), "top5": Metric("top-5")}


@dataclass(frozen=True)
class ProbeRun:
    """Trained heads and one record per epoch: epoch (from 1), rate_factor, and of each head (H,) loss, top1, top5.

    Accuracies are in percent; `held_out_top1` is there where images are held out.
    """

    heads: LinearHeads
    epochs: tuple[dict[str, Any], ...]

    def curve(self, head: int) -> list[dict[str, float]]:
        """One head's record of each epoch, with its learning rate."""
        rate = self.heads.solver.learning_rates[head]
        return [
            {
                "epoch": record["epoch"],
                "learning_rate": rate * record["rate_factor"],
                **{name: values[head].item() for name, values in record.items() if isinstance(values, torch.Tensor)},
            }
            for record in self.epochs
        ]


def run_linear(backbone: Backbone, data: Path, protocol: LinearProtocol, context: RunContext) -> Measurement:
    """Probe a backbone on `data/train`, `data/val`; the metrics are those of the last epoch.

    With several rates or decays, they are those of the head that is best on images held out of training.

    Raises:
        UserError: bad data, or a loss that is not finite, of every head where there are several.
    """
    splits = read_splits(data)
    frozen = freeze(backbone, device=context.device, precision=context.precision)
    center = CenterView(protocol.test_resize, protocol.image_size)
    # The validation crop never changes and neither does the backbone: its features are computed once, exactly.
    val = frozen.extract_folder(splits.val, center, context, label="val features")
    feature_norm = mean_norm(val[0])
    print(f"mean feature norm {feature_norm:.4g}, learning rate {show_rates(protocol)}", flush=True)
    epoch_batches, num_images, held_out = training_features(frozen, splits.train, protocol, context)
    run = fit_probe(
        epoch_batches,
        val,
        protocol,
        held_out=held_out,
        num_images=num_images,
        num_classes=len(splits.train.classes),
        feature_norm=feature_norm,
        device=context.device,
        seed=context.seed,
    )
    frozen.require_unmoved()
    head = choose_head(run)
    curve = run.curve(head)
    correct = run.heads.hits(val, k=1)[:, head, 0]
    details = {
        "feature_norm": feature_norm,
        "curve": curve,
        "best_epoch": best_epoch(curve),
        "per_class": accuracy_by_class(correct, val[1], splits.train.classes),
        **({"heads": describe_heads(run, chosen=head)} if held_out is not None else {}),
    }
    return Measurement({name: curve[-1][name] for name in METRIC_INFO}, METRIC_INFO, splits.identity, details)


def show_rates(protocol: LinearProtocol) -> str:
    """The learning rate, or how many of them from which to which."""
    rates = protocol.learning_rate
    return f"{rates[0]:g}" if len(rates) == 1 else f"{min(rates):g} to {max(rates):g} in {len(grid(protocol))} heads"


def best_epoch(curve: list[dict[str, float]]) -> dict[str, Any]:
    """The epoch with the best top-1, labelled as what it is."""
    best = max(curve, key=lambda record: record["top1"])
    return {"note": "chosen on the validation images, so not the result", **best}


def choose_head(run: ProbeRun) -> int:
    """The head with the best last top-1 on the images held out; of equals the first. The only one needs no images."""
    last = run.epochs[-1]
    if "held_out_top1" not in last:
        return 0
    finite = last["loss"].isfinite()
    return int(last["held_out_top1"].where(finite, torch.tensor(-1.0, dtype=torch.float64)).argmax())


def describe_heads(run: ProbeRun, *, chosen: int) -> list[dict[str, Any]]:
    """Every head's settings and curve: the loss (None where it is not finite) and the accuracy on images held out."""
    solver, described = run.heads.solver, []
    for head, (rate, decay) in enumerate(zip(solver.learning_rates, solver.weight_decays, strict=True)):
        losses = [record["loss"][head].item() for record in run.epochs]
        described.append(
            {
                "learning_rate": rate,
                "weight_decay": decay,
                "is_chosen": head == chosen,
                "loss": [loss if math.isfinite(loss) else None for loss in losses],
                "held_out_top1": [record["held_out_top1"][head].item() for record in run.epochs],
            }
        )
    return described


def epoch_order(num_images: int, *, seed: int, epoch: int) -> torch.Tensor:
    """The order of the training images in one epoch, a permutation (num_images,)."""
    return torch.randperm(num_images, generator=torch_generator(seed, "order", epoch))


def training_features(
    frozen: FrozenBackbone, train: ImageFolder, protocol: LinearProtocol, context: RunContext
) -> tuple[Callable[[int], Iterator[Batch]], int, Batch | None]:
    """Batches of features for an epoch, how many images they are, and the features of those held out, if any are."""
    center = CenterView(protocol.test_resize, protocol.image_size)
    trained, held = torch.arange(len(train.paths)), None
    if len(grid(protocol)) > 1:
        trained, held = hold_out(train.labels, fraction=protocol.held_out, seed=context.seed)
    if protocol.train_views == "center-once":
        features, labels = frozen.extract_folder(train, center, context, label="train features")
        batches = cached_batches(
            (features[trained], labels[trained]), batch_size=protocol.batch_size, seed=context.seed
        )
        return batches, len(trained), None if held is None else (features[held], labels[held])
    held_out = None
    if held is not None:
        held_out = frozen.extract_folder(train.select(held.tolist()), center, context, label="held-out features")
    return augmented_batches(frozen, train, trained, protocol, context), len(trained), held_out


def cached_batches(train: Batch, *, batch_size: int, seed: int) -> Callable[[int], Iterator[Batch]]:
    """Batches of cached features (N, C) and labels (N,) for an epoch, in that epoch's order."""
    features, labels = train

    def of_epoch(epoch: int) -> Iterator[Batch]:
        for chosen in epoch_order(len(labels), seed=seed, epoch=epoch).split(batch_size):
            yield features[chosen], labels[chosen]

    return of_epoch


def augmented_batches(
    frozen: FrozenBackbone, train: ImageFolder, trained: torch.Tensor, protocol: LinearProtocol, context: RunContext
) -> Callable[[int], Iterator[Batch]]:
    """Batches of features of newly drawn views of the images at positions `trained`, in the epoch's order."""
    view = RandomView(protocol.image_size, protocol.crop_scale, protocol.crop_ratio, protocol.flip_probability)

    def of_epoch(epoch: int) -> Iterator[Batch]:
        images = image_batches(
            train,
            trained[epoch_order(len(trained), seed=context.seed, epoch=epoch)].tolist(),
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


def grid(protocol: LinearProtocol) -> list[tuple[float, float]]:
    """The (learning rate, weight decay) of every head."""
    return list(product(protocol.learning_rate, protocol.weight_decay))


def rate_factor(protocol: LinearProtocol, position: float) -> float:
    """What the learning rate is multiplied by at a position, counted in epochs from 0, such as 3.5."""
    if protocol.schedule == "step":
        return protocol.decay_factor ** sum(position >= decay for decay in protocol.decay_epochs)
    if protocol.schedule == "cosine-per-epoch":
        position = math.floor(position)
    return 0.5 * (1 + math.cos(math.pi * position / protocol.epochs))


def fit_probe(
    epoch_batches: Callable[[int], Iterable[Batch]],
    val: Batch,
    protocol: LinearProtocol,
    *,
    held_out: Batch | None = None,
    num_images: int,
    num_classes: int,
    feature_norm: float,
    device: torch.device,
    seed: int,
) -> ProbeRun:
    """Train the heads on cross-entropy and evaluate them after every epoch.

    `epoch_batches(epoch)` yields features (N, C) and labels (N,); `val` and `held_out` are features (V, C) and
    labels (V,).

    Raises:
        UserError: no head's loss is finite.
    """
    rates, decays = zip(*grid(protocol), strict=True)
    classifier = make_classifier(val[0].shape[1], num_classes, init_std=protocol.init_std, seed=seed)
    heads = LinearHeads(classifier, Solver(rates, decays, protocol.momentum, protocol.optimizer), device=device)
    num_steps = math.ceil(num_images / protocol.batch_size)
    records = []
    with progress(total=protocol.epochs * num_images, label="linear probe", unit="image") as bar:
        for epoch in range(protocol.epochs):
            total = torch.zeros(len(rates), dtype=torch.float64)
            for step, (features, labels) in enumerate(epoch_batches(epoch)):
                factor = rate_factor(protocol, epoch + step / num_steps)
                losses = heads.step(features.to(device), labels.to(device), rate_factor=factor).cpu()
                if not losses.isfinite().any():
                    raise UserError(_divergence(losses[0].item(), epoch=epoch, rates=rates, feature_norm=feature_norm))
                total += losses.double() * len(labels)
                bar.update(len(labels))
            record: dict[str, Any] = {"epoch": epoch + 1, "rate_factor": rate_factor(protocol, epoch)}
            record |= {"loss": total / num_images, **topk_accuracies(heads, val)}
            if held_out is not None:
                record["held_out_top1"] = topk_accuracies(heads, held_out)["top1"]
            records.append(record)
            bar.set_postfix(epoch=epoch + 1, loss=f"{total.min() / num_images:.3g}", top1=f"{record['top1'].max():.1f}")
    return ProbeRun(heads, tuple(records))


def _divergence(loss: float, *, epoch: int, rates: tuple[float, ...], feature_norm: float) -> str:
    return (
        f"epoch {epoch + 1}: expected a finite loss, found {loss}; a learning rate of {min(rates):g} is probably too "
        f"high for features of mean norm {feature_norm:.3g}: lower --learning-rate"
    )
