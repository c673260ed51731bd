"""Fine-tuning on few labels: all layers learn, on a class-balanced part of the training images or a list of them."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.classification.data import CenterView, RandomView, image_batches, read_splits
from benchmarks.classification.features import FEATURE_BATCH
from benchmarks.classification.heads import accuracy_by_class, make_classifier
from benchmarks.classification.held_out import hold_out
from benchmarks.classification.linear import epoch_order
from benchmarks.classification.semi_protocol import SemiProtocol
from benchmarks.context import Measurement, RunContext
from benchmarks.result import Metric, SplitIdentity
from mocobench.runtime.device import autocast
from mocobench.runtime.errors import UserError
from mocobench.runtime.images import ImageFolder
from mocobench.runtime.progress import progress
from transfer.backbone import Backbone
from transfer.network import build_network

METRIC_INFO = {"top1": Metric("top-1"), "top5": Metric("top-5")}


@dataclass(frozen=True)
class FineTuned:
    """The network, its classifier included, and the mean training loss of each epoch."""

    network: nn.Module
    losses: tuple[float, ...]


def run_semi(backbone: Backbone, data: Path, protocol: SemiProtocol, context: RunContext) -> Measurement:
    """Fine-tune on the labelled part of `data/train`, classify `data/val` after the last epoch.

    Raises:
        UserError: bad data, a bad list, or a loss that is not finite.
    """
    splits = read_splits(data)
    labelled = labelled_part(splits.train, protocol, context)
    identity = SplitIdentity(images=len(labelled.paths), list_sha256=labelled.list_sha256())
    print(f"{len(labelled.paths)} of {len(splits.train.paths)} images are labelled", flush=True)
    tuned = fine_tune(backbone, labelled, protocol, context)
    hits = ranked_hits(backbone, tuned.network, splits.val, protocol, context)
    labels = torch.tensor(splits.val.labels)
    return Measurement(
        metrics={"top1": 100 * hits[:, 0].sum().item() / len(hits), "top5": 100 * hits.sum().item() / len(hits)},
        metric_info=METRIC_INFO,
        data=replace(splits.identity, splits={**splits.identity.splits, "labelled": identity}),
        details={"loss": list(tuned.losses), "per_class": accuracy_by_class(hits[:, 0], labels, splits.train.classes)},
    )


def labelled_part(train: ImageFolder, protocol: SemiProtocol, context: RunContext) -> ImageFolder:
    """The images named in `context.label_list`, or the protocol's fraction of every class, drawn from the seed.

    Raises:
        UserError: the list cannot be read, repeats a name, or names an image that is not there.
    """
    if context.label_list is None:
        if protocol.labels == 1:
            return train
        return train.select(hold_out(train.labels, fraction=protocol.labels, seed=context.seed)[1].tolist())
    path = context.label_list
    try:
        names = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--label-list {path}: expected the names of images, one per line, found {error}") from error
    position = {image.name: index for index, image in enumerate(train.paths)}
    unknown = [name for name in names if Path(name).name not in position]
    if unknown or not names or len(set(names)) < len(names):
        fault = f"{unknown[0]}, which is not there" if unknown else "a name twice" if names else "none"
        raise UserError(f"--label-list {path}: expected names of images below {train.root}, each once, found {fault}")
    return train.select(sorted(position[Path(name).name] for name in names))


def fine_tune(backbone: Backbone, labelled: ImageFolder, protocol: SemiProtocol, context: RunContext) -> FineTuned:
    """Train the backbone and a new classifier, BN in training mode.

    Raises:
        UserError: an image cannot be read, or the loss is not finite.
    """
    network = build_network(backbone)
    network.fc = make_classifier(
        backbone.feature_size, len(labelled.classes), init_std=protocol.init_std, seed=context.seed
    )
    network = network.to(context.device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=protocol.learning_rate,
        momentum=protocol.momentum,
        weight_decay=protocol.weight_decay,
        nesterov=True,
    )
    view = RandomView(protocol.image_size, protocol.crop_scale, protocol.crop_ratio, protocol.flip_probability)
    num_images = len(labelled.paths)
    num_steps, step, losses = protocol.epochs * math.ceil(num_images / protocol.batch_size), 0, []
    with progress(total=protocol.epochs * num_images, label="fine-tuning", unit="image") as bar:
        for epoch in range(protocol.epochs):
            total = 0.0
            order = epoch_order(num_images, seed=context.seed, epoch=epoch).tolist()
            settings = {"batch_size": protocol.batch_size, "seed": context.seed, "epoch": epoch}
            for images, labels in image_batches(
                labelled, order, view=view, num_workers=context.num_workers, **settings
            ):
                rate = 0.5 * protocol.learning_rate * (1 + math.cos(math.pi * step / num_steps))
                optimizer.param_groups[0]["lr"] = rate
                loss = _step(backbone, network, optimizer, images, labels, protocol, context)
                if not math.isfinite(loss):
                    raise UserError(
                        f"epoch {epoch + 1}: expected a finite loss, found {loss}; a learning rate of {rate:g} is "
                        "probably too high: lower --learning-rate"
                    )
                total, step = total + loss * len(labels), step + 1
                bar.update(len(labels))
            losses.append(total / num_images)
    return FineTuned(network.eval(), tuple(losses))


def _step(
    backbone: Backbone,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    labels: torch.Tensor,
    protocol: SemiProtocol,
    context: RunContext,
) -> float:
    """One step on a batch, whose gradient is that of the mean loss; returns the mean loss before it."""
    optimizer.zero_grad()
    total = 0.0
    # Parts as equal as can be, so that none is too small for BN.
    num_parts = math.ceil(len(labels) / protocol.bn_batch)
    for part, part_labels in zip(images.tensor_split(num_parts), labels.tensor_split(num_parts), strict=True):
        logits = _logits(backbone, network, part, context)
        loss = F.cross_entropy(logits, part_labels.to(context.device), reduction="sum") / len(labels)
        loss.backward()
        total += loss.item()
    optimizer.step()
    return total


def _logits(backbone: Backbone, network: nn.Module, images: torch.Tensor, context: RunContext) -> torch.Tensor:
    images = images.to(context.device).to(memory_format=torch.channels_last)
    with autocast(context.device, context.precision):
        logits: torch.Tensor = network(backbone.input.prepare(images.float() / 255))
    return logits.float()


@torch.no_grad()
def ranked_hits(
    backbone: Backbone, network: nn.Module, val: ImageFolder, protocol: SemiProtocol, context: RunContext
) -> torch.Tensor:
    """Whether the label is the best, second best, ... fifth best class: bool (N, 5), or as many as there are."""
    view, found = CenterView(protocol.test_resize, protocol.image_size), []
    for images, labels in image_batches(
        val,
        range(len(val.paths)),
        view=view,
        batch_size=FEATURE_BATCH,
        seed=context.seed,
        num_workers=context.num_workers,
    ):
        logits = _logits(backbone, network, images, context).cpu()
        found.append(logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None])
    return torch.cat(found)
