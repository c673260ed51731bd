"""One step of fine-tuning: losses of the parts of a batch, their mean gradient, and what to say when it fails."""

from dataclasses import dataclass, field
from functools import reduce

import torch

from benchmarks.context import RunContext
from benchmarks.detection.embedded.rcnn import RCNN
from benchmarks.detection.embedded_checkpoint import LAST, Checkpoint
from benchmarks.detection.embedded_parts import Parts, sample_generator
from benchmarks.detection.input import Example, assemble
from benchmarks.detection.protocol import DetectionProtocol
from benchmarks.detection.records import LabelledImage
from mocobench.runtime.device import autocast
from mocobench.runtime.distributed import sum_gradients, sum_over_ranks
from mocobench.runtime.errors import UserError
from transfer.backbone import InputSpec

# What the random draws of training are for; its images are drawn for the same.
TRAINING = "detection-training"


@dataclass
class Training:
    """A fine-tuning, and how far it is: `iteration` iterations done, `saved_at` of them in the last checkpoint."""

    model: RCNN
    optimizer: torch.optim.SGD
    images: tuple[LabelledImage, ...]
    input: InputSpec
    protocol: DetectionProtocol
    context: RunContext
    parts: Parts
    iteration: int = 0
    saved_at: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)
    since: list[dict[str, float]] = field(default_factory=list)

    def restore(self, saved: Checkpoint) -> None:
        """Take up what a checkpoint holds."""
        self.model.load_state_dict(saved.model)
        if saved.optimizer is not None:
            self.optimizer.load_state_dict(saved.optimizer)
        self.iteration = self.saved_at = saved.iteration
        self.curve, self.since = list(saved.curve), list(saved.since)

    def checkpoint(self, *, seconds: float, is_final: bool = False) -> Checkpoint:
        """What there is now."""
        self.saved_at = self.iteration
        optimizer = None if is_final else self.optimizer.state_dict()
        return Checkpoint(self.iteration, self.model.state_dict(), optimizer, self.curve, self.since, seconds)


def step(training: Training, passes: list[list[Example]]) -> dict[str, float]:
    """One optimizer step on the mean gradient of all parts; the total loss and its parts, means over them too.

    Raises:
        UserError: a loss is not finite; the weights are then those before the step.
    """
    training.optimizer.zero_grad()
    names: list[str] = []
    found: list[torch.Tensor] = []  # of each pass: the total, then its parts
    for number, batch in enumerate(passes):
        losses = part_losses(training, batch, purpose=TRAINING, number=number, iteration=training.iteration)
        total = torch.stack(list(losses.values())).sum()
        (total / training.parts.count).backward()
        names = ["total_loss", *losses]
        found.append(torch.stack([total, *losses.values()]).detach())
    _require_finite(training, passes, names, found)
    sum_gradients(training.model.parameters())
    training.optimizer.step()
    means = sum_over_ranks(reduce(torch.add, found)) / training.parts.count
    return dict(zip(names, means.tolist(), strict=True))


def part_losses(
    training: Training, batch: list[Example], *, purpose: str, number: int, iteration: int
) -> dict[str, torch.Tensor]:
    """The losses of this process's pass `number` of a batch.

    Raises:
        UserError: the proposals are not finite.
    """
    context = training.context
    generator = sample_generator(context, training.parts, purpose=purpose, batch=iteration, number=number)
    divisibility = training.model.size_divisibility
    images, sizes = assemble(batch, training.input, context.device, size_divisibility=divisibility)
    targets = [example.targets.to(context.device) for example in batch]
    try:
        with autocast(context.device, context.precision):
            return training.model(images, sizes, targets, generator)
    except FloatingPointError as error:
        raise _diverged(training, batch, str(error)) from error


def _require_finite(
    training: Training, passes: list[list[Example]], names: list[str], found: list[torch.Tensor]
) -> None:
    """Looks at all passes at once: each look makes a GPU wait."""
    finite = torch.stack(found)[:, 0].isfinite().tolist()
    if not all(finite):
        number = finite.index(False)
        losses = list(zip(names, found[number].tolist(), strict=True))
        raise _diverged(training, passes[number], ", ".join(f"{name} {loss:g}" for name, loss in losses[1:]))


def _diverged(training: Training, batch: list[Example], found: str) -> UserError:
    is_trained = training.iteration == training.protocol.iterations
    where = "precise BN" if is_trained else f"iteration {training.iteration + 1}"
    ids = ", ".join(str(example.image_id) for example in batch)
    message = (
        f"{where}, images {ids}: expected finite losses, found {found}; "
        "lower the learning rate or look at these annotations"
    )
    if training.context.out is not None and training.saved_at:
        message += f" (iteration {training.saved_at} is kept in {training.context.out / LAST})"
    return UserError(message)
