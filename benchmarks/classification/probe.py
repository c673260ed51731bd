"""Training linear heads on features, epoch by epoch, from the start or from where a run was stopped."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.classification.checkpoint import Checkpoints
from benchmarks.classification.data import Batch
from benchmarks.classification.heads import LinearHeads, Solver, make_classifier, topk_accuracies
from benchmarks.classification.probe_record import ProbeRun, curve_points
from benchmarks.classification.protocol import LinearProtocol
from benchmarks.curve_log import CurveLog
from mocobench.runtime.errors import UserError
from mocobench.runtime.memory import out_of_memory_means
from mocobench.runtime.progress import progress, say

CURVE = "probe_curve.jsonl"
LESS_MEMORY = (
    "use --device cpu, or lower --batch-size or the number of --learning-rate and --weight-decay, which change the "
    "protocol"
)

EpochBatches = Callable[[int, int], Iterator[Batch]]  # of (epoch, first): its batches from the `first` on


@dataclass
class ProbeTraining:
    """Heads after `epoch` epochs and `step` steps of the next, with the records of the epochs that are over.

    `total` (H,) is the sum of each head's losses over the images of the running epoch.
    """

    heads: LinearHeads
    total: torch.Tensor
    epoch: int = 0
    step: int = 0
    records: list[dict[str, Any]] = field(default_factory=list)

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, for `restore`."""
        position = {"epoch": self.epoch, "step": self.step, "total": self.total, "records": self.records}
        return {**position, "heads": self.heads.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.epoch, self.step, self.total = state["epoch"], state["step"], state["total"]
        self.records = list(state["records"])
        self.heads.restore(state["heads"])
        say(f"goes on after epoch {self.epoch}, step {self.step} of the next")


def fit_probe(
    epoch_batches: EpochBatches,
    val: Batch,
    protocol: LinearProtocol,
    *,
    held_out: Batch | None = None,
    num_images: int,
    num_classes: int,
    feature_norm: float,
    device: torch.device,
    seed: int,
    checkpoints: Checkpoints | None = None,
    out: Path | None = None,
) -> ProbeRun:
    """Train the heads on cross-entropy and evaluate them after every epoch.

    `epoch_batches(epoch, first)` yields features (N, C) and labels (N,); `val` and `held_out` are features (V, C) and
    labels (V,). Every rank takes the same steps on the same features. The curve goes to the folder `out`.

    Raises:
        UserError: no head's loss is finite, memory runs out, or a checkpoint is of another run.
    """
    checkpoints = checkpoints or Checkpoints()
    rates, decays = zip(*grid(protocol), strict=True)
    classifier = make_classifier(val[0].shape[1], num_classes, init_std=protocol.init_std, seed=seed)
    heads = LinearHeads(classifier, Solver(rates, decays, protocol.momentum, protocol.optimizer), device=device)
    training = ProbeTraining(heads, torch.zeros(len(rates), dtype=torch.float64))
    if (saved := checkpoints.load()) is not None:
        training.restore(saved)
    num_steps = math.ceil(num_images / protocol.batch_size)
    log = CurveLog(out, CURVE, curve_points(training.records, heads.solver, num_steps=num_steps))
    done = training.epoch * num_images + training.step * protocol.batch_size
    with progress(total=protocol.epochs * num_images, done=done, label="linear probe", unit="image") as bar:
        for epoch in range(training.epoch, protocol.epochs):
            batches = epoch_batches(epoch, training.step)
            _train_epoch(training, batches, protocol, num_steps, checkpoints, feature_norm=feature_norm, bar=bar)
            record: dict[str, Any] = {"epoch": epoch + 1, "rate_factor": rate_factor(protocol, epoch)}
            record |= {"loss": training.total / num_images, **topk_accuracies(heads, val)}
            if held_out is not None:
                record["held_out_top1"] = topk_accuracies(heads, held_out)["top1"]
            training.records.append(record)
            log.write(curve_points([record], heads.solver, num_steps=num_steps)[0])
            bar.set_postfix(epoch=epoch + 1, loss=f"{record['loss'].min():.3g}", top1=f"{record['top1'].max():.1f}")
            training.epoch, training.step, training.total = epoch + 1, 0, torch.zeros_like(training.total)
            checkpoints.save(training.state())
    return ProbeRun(heads, tuple(training.records))


def _train_epoch(
    training: ProbeTraining,
    batches: Iterator[Batch],
    protocol: LinearProtocol,
    num_steps: int,
    checkpoints: Checkpoints,
    *,
    feature_norm: float,
    bar: "tqdm[Any]",
) -> None:
    """The steps of the running epoch that are left, and the checkpoints on the way."""
    heads = training.heads
    for features, labels in batches:
        device, position = heads.weight.device, training.epoch + training.step / num_steps
        factor = rate_factor(protocol, position)
        with out_of_memory_means(f"a step on {len(labels)} images", remedy=LESS_MEMORY):
            losses = heads.step(features.to(device), labels.to(device), rate_factor=factor).cpu()
        if not losses.isfinite().any():
            raise UserError(_divergence(losses[0].item(), training.epoch, heads.solver, feature_norm=feature_norm))
        training.total += losses.double() * len(labels)
        training.step += 1
        bar.update(len(labels))
        is_due = (training.epoch * num_steps + training.step) % checkpoints.every == 0
        if is_due and training.step < num_steps:  # the epoch's end has its own
            checkpoints.save(training.state())


def _divergence(loss: float, epoch: int, solver: Solver, *, feature_norm: float) -> str:
    return (
        f"epoch {epoch + 1}: expected a finite loss, found {loss}; a learning rate of {min(solver.learning_rates):g} "
        f"is probably too high for features of mean norm {feature_norm:.3g}: lower --learning-rate"
    )


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
