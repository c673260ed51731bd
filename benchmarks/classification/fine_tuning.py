"""Fine-tuning all layers on labelled images, from the start or from where a run was stopped.

The passes of a batch, each with BN statistics of its own, are shared by the ranks; what they add up to is what one
process computes.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.classification.batch_norm import SharedStatistics
from benchmarks.classification.checkpoint import Checkpoints
from benchmarks.classification.data import Batch, RandomView, listed_batches
from benchmarks.classification.heads import make_classifier
from benchmarks.classification.linear import epoch_order
from benchmarks.classification.semi_protocol import SemiProtocol
from benchmarks.classification.torchvision_data import LabelledImages
from benchmarks.context import RunContext
from benchmarks.curve_log import CurveLog
from mocobench.runtime.device import autocast
from mocobench.runtime.distributed import part_sizes, rank, sum_gradients, sum_over_ranks
from mocobench.runtime.errors import UserError
from mocobench.runtime.memory import out_of_memory_means
from mocobench.runtime.progress import progress, say
from transfer.backbone import Backbone
from transfer.network import build_network

CURVE = "fine_tuning_curve.jsonl"
LESS_MEMORY = "lower --bn-batch or --image-size, which change the protocol"


@dataclass
class FineTuning:
    """The network, its classifier included, after `epoch` epochs and `step` steps of the next.

    `losses` are the mean training losses of the epochs, `total` the sum over the images of the running one.
    """

    backbone: Backbone
    network: nn.Module
    optimizer: torch.optim.Optimizer
    protocol: SemiProtocol
    context: RunContext
    epoch: int = 0
    step: int = 0
    total: float = 0.0
    losses: list[float] = field(default_factory=list)

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, for `restore`."""
        position = {"epoch": self.epoch, "step": self.step, "total": self.total, "losses": self.losses}
        return {**position, "network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.epoch, self.step, self.total = state["epoch"], state["step"], state["total"]
        self.losses = list(state["losses"])
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        say(f"goes on after epoch {self.epoch}, step {self.step} of the next")


def fine_tune(
    backbone: Backbone,
    labelled: LabelledImages,
    protocol: SemiProtocol,
    context: RunContext,
    *,
    checkpoints: Checkpoints | None = None,
) -> FineTuning:
    """Train the backbone and a new classifier, BN in training mode; the network comes back in eval mode.

    Raises:
        UserError: an image cannot be read, the loss is not finite, memory runs out, or a checkpoint is of another run.
    """
    checkpoints = checkpoints or Checkpoints()
    tuning = _start(backbone, labelled, protocol, context)
    if (saved := checkpoints.load()) is not None:
        tuning.restore(saved)
    num_steps = math.ceil(len(labelled) / protocol.batch_size)
    points = [{"iteration": (epoch + 1) * num_steps, "loss": loss} for epoch, loss in enumerate(tuning.losses)]
    log = CurveLog(context.out, CURVE, points)
    done = tuning.epoch * len(labelled) + tuning.step * protocol.batch_size
    with progress(total=protocol.epochs * len(labelled), done=done, label="fine-tuning", unit="image") as bar:
        while tuning.epoch < protocol.epochs:
            for batch in _batches_left(tuning, labelled):
                with out_of_memory_means(f"a step at --bn-batch {protocol.bn_batch}", remedy=LESS_MEMORY):
                    bar.update(_step(tuning, batch, num_steps=num_steps))
                if (tuning.epoch * num_steps + tuning.step) % checkpoints.every == 0 and tuning.step < num_steps:
                    checkpoints.save(tuning.state())
            tuning.losses.append(tuning.total / len(labelled))
            tuning.epoch, tuning.step, tuning.total = tuning.epoch + 1, 0, 0.0
            log.write({"iteration": tuning.epoch * num_steps, "loss": tuning.losses[-1]})
            checkpoints.save(tuning.state())
    tuning.network.eval()
    return tuning


def _start(backbone: Backbone, labelled: LabelledImages, protocol: SemiProtocol, context: RunContext) -> FineTuning:
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
    return FineTuning(backbone, network, optimizer, protocol, context)


@dataclass(frozen=True)
class SharedBatch:
    """This rank's passes of a batch of `num_images` images, which takes `num_passes` on all ranks together."""

    passes: tuple[Batch, ...]
    num_passes: int
    num_images: int


def _batches_left(tuning: FineTuning, labelled: LabelledImages) -> Iterator[SharedBatch]:
    """The batches of the running epoch that are left, in its order."""
    protocol, context = tuning.protocol, tuning.context
    view = RandomView(protocol.image_size, protocol.crop_scale, protocol.crop_ratio, protocol.flip_probability)
    order = epoch_order(len(labelled), seed=context.seed, epoch=tuning.epoch)
    batches = [_passes(batch, protocol) for batch in order.split(protocol.batch_size)[tuning.step :]]
    own = [_own_passes(passes) for passes in batches]
    views = listed_batches(
        labelled,
        [[index for one in passes for index in one.tolist()] for passes in own],
        view=view,
        seed=context.seed,
        epoch=tuning.epoch,
        num_workers=context.num_workers,
        on_bad_image=context.on_bad_image,
        pin_memory=context.device.type == "cuda",
    )
    for passes, mine, (images, labels) in zip(batches, own, views, strict=True):
        sizes = [len(one) for one in mine]
        parts = tuple(zip(images.split(sizes), labels.split(sizes), strict=True))
        yield SharedBatch(parts, len(passes), sum(len(one) for one in passes))


def _passes(batch: torch.Tensor, protocol: SemiProtocol) -> tuple[torch.Tensor, ...]:
    # As equal as can be, so that none is too small for BN.
    return batch.tensor_split(math.ceil(len(batch) / protocol.bn_batch))


def _own_passes(passes: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    sizes = part_sizes(len(passes))
    first = sum(sizes[: rank()])
    return passes[first : first + sizes[rank()]]


def _step(tuning: FineTuning, batch: SharedBatch, *, num_steps: int) -> int:
    """One step on a batch, whose gradient is that of the mean loss; returns how many images it has.

    Raises:
        UserError: the loss is not finite.
    """
    protocol, parameters = tuning.protocol, list(tuning.network.parameters())
    position = (tuning.epoch * num_steps + tuning.step) / (protocol.epochs * num_steps)
    rate = 0.5 * protocol.learning_rate * (1 + math.cos(math.pi * position))
    tuning.optimizer.param_groups[0]["lr"] = rate
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)  # a rank may have no pass of a small last batch
    statistics, loss = SharedStatistics(tuning.network), torch.zeros((), dtype=torch.float64)
    for images, labels in batch.passes:
        logits = logits_of(tuning, images)
        part = F.cross_entropy(logits, labels.to(tuning.context.device), reduction="sum") / batch.num_images
        part.backward()
        loss += part.item()
    sum_gradients(parameters)
    statistics.merge(batch.num_passes)
    mean_loss = sum_over_ranks(loss).item()
    if not math.isfinite(mean_loss):
        raise UserError(
            f"epoch {tuning.epoch + 1}: expected a finite loss, found {mean_loss}; a learning rate of {rate:g} is "
            "probably too high: lower --learning-rate"
        )
    tuning.optimizer.step()
    tuning.total, tuning.step = tuning.total + mean_loss * batch.num_images, tuning.step + 1
    return batch.num_images


def logits_of(tuning: FineTuning, images: torch.Tensor) -> torch.Tensor:
    """Of uint8 RGB images (N, 3, H, W): float32 (N, K) on the device."""
    context = tuning.context
    images = images.to(context.device).to(memory_format=torch.channels_last)
    with autocast(context.device, context.precision):
        logits: torch.Tensor = tuning.network(tuning.backbone.input.prepare(images.float() / 255))
    return logits.float()
