"""One step of pretraining: views in, weights moved, metrics out; over all processes when there are several."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from mocobench.runtime.device import autocast
from mocobench.runtime.distributed import (
    average_over_ranks,
    gather_tensors,
    sum_gradients,
    sum_over_ranks,
    world_size,
)
from mocobench.runtime.errors import UserError
from mocobench.runtime.memory import keep_freed_memory
from mocobench.runtime.replay import CALLS_BEFORE, Replayed
from mocobench.runtime.seeds import torch_generator
from pretrain.moco import contrastive_loss
from pretrain.run import Progress, TrainingRun

METRICS = ("loss", "accuracy", "positive_similarity", "negative_similarity", "embedding_spread")


class StepMetrics:
    """The metrics of one step over the whole batch, by name; a GPU may still be computing them.

    `accuracy` is the share of queries whose positive is the largest of the 1 + K logits, in percent.
    `embedding_spread` is the mean over dimensions of the queries' standard deviation times sqrt(C):
    about 1 for embeddings spread over the sphere, 0 when they have collapsed to a point. The two similarities are mean
    cosines, of queries with their positive and with their negatives.
    """

    def __init__(self, values: torch.Tensor, run: TrainingRun, progress: Progress) -> None:
        self._values = values.to("cpu", non_blocking=True)
        self._arrival = torch.cuda.current_stream(values.device).record_event() if values.is_cuda else None
        self._remedy = f"lower --learning-rate or use --precision fp32; checkpoints in {run.out} are untouched"
        self._place = f"epoch {progress.epoch + 1}, step {progress.step + 1}"

    def wait(self) -> dict[str, float]:
        """The metrics, once they are there.

        Raises:
            UserError: the loss is not finite; raised on every process.
        """
        if self._arrival is not None:
            self._arrival.synchronize()
        metrics = dict(zip(METRICS, self._values.tolist(), strict=True))
        if not math.isfinite(metrics["loss"]):
            raise UserError(f"{self._place}: expected a finite loss, found {metrics['loss']}; {self._remedy}")
        return metrics


class Trainer:
    """Takes the steps of a run. On a GPU those of a single process are replayed (mocobench.runtime.replay).

    On a CPU the process keeps the memory that a step frees for the next one. The first `warm_up_steps` take longer than
    those that follow.
    """

    def __init__(self, run: TrainingRun, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._run, self._model, self._optimizer = run, model, optimizer
        if run.device.type == "cpu":
            keep_freed_memory()
        compute = partial(compute_gradients, run, model, make_normaliser(run))
        # Compiled code makes what it needs at its own time; several processes wait for each other.
        is_replayed = run.device.type == "cuda" and world_size() == 1 and not run.compile
        self._compute = Replayed(compute) if is_replayed else compute
        self.warm_up_steps = CALLS_BEFORE + 1 if is_replayed else 1

    def step(self, views: torch.Tensor, progress: Progress) -> StepMetrics:
        """One optimizer step on this process's part of a batch, uint8 (n, 2, 3, S, S). A GPU is not waited for.

        The gradient is the mean over processes, and so are the running statistics after the step: those of a single
        process with as many BN groups (see GroupedBatchNorm2d).
        """
        run, model = self._run, self._model
        generator = torch_generator(run.seed, "shuffle", progress.epoch, progress.step)
        shuffle = torch.randperm(len(views) * world_size(), generator=generator)
        values = self._compute(views.to(run.device), shuffle.to(run.device, non_blocking=True))
        sum_gradients(parameter for parameter in model.parameters() if parameter.requires_grad)
        self._optimizer.step()
        average_over_ranks([buffer for name, buffer in model.named_buffers() if ".running_" in name])
        return StepMetrics(values, run, progress)


def compute_gradients(
    run: TrainingRun,
    model: nn.Module,
    normalise: Callable[[torch.Tensor], torch.Tensor],
    views: torch.Tensor,
    shuffle: torch.Tensor,
) -> torch.Tensor:
    """Put the loss's gradient into the parameters, this process's share of it; the `METRICS` of the whole batch."""
    with autocast(run.device, run.precision):
        logits, q = model(normalise(views[:, 0]), normalise(views[:, 1]), shuffle)
    # A method may have several queries per image; an image's loss is the sum over them.
    loss = contrastive_loss(logits) * (len(logits) / len(views))
    seen = logits.detach()
    accuracy = 100 * (seen.argmax(dim=1) == 0).float().mean()
    cosines = (run.recipe.temperature * part.mean() for part in (seen[:, 0], seen[:, 1:]))
    means = sum_over_ranks(torch.stack([loss.detach(), accuracy, *cosines])) / world_size()
    model.zero_grad()
    (loss / world_size()).backward()
    spread = gather_tensors(q).std(dim=0).mean() * q.shape[1] ** 0.5
    return torch.cat([means, spread[None]])


def make_normaliser(run: TrainingRun) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function from uint8 views (n, 3, S, S) on any device to normalised float32 ones on the run's device."""
    augmentation = run.recipe.augmentation
    constants: Any = (augmentation.mean, augmentation.std)
    mean, std = (torch.tensor(values, device=run.device).view(3, 1, 1) for values in constants)

    def normalise(views: torch.Tensor) -> torch.Tensor:
        images = views.to(run.device, non_blocking=True, memory_format=torch.channels_last)
        return (images.float() / 255 - mean) / std

    return normalise
