"""One step of pretraining: views in, weights moved, metrics out; over all processes when there are several."""

from collections.abc import Callable
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
from mocobench.runtime.seeds import torch_generator
from pretrain.moco import contrastive_loss
from pretrain.run import Progress, TrainingRun


def train_step(
    run: TrainingRun,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    normalise: Callable[[torch.Tensor], torch.Tensor],
    views: torch.Tensor,
    progress: Progress,
) -> dict[str, float]:
    """One optimizer step on this process's part of a batch, uint8 (n, 2, 3, S, S); metrics of the whole batch.

    `accuracy` is the share of queries whose positive is the largest of the 1 + K logits, in percent.
    `embedding_spread` is the mean over dimensions of the queries' standard deviation times sqrt(C):
    about 1 for embeddings spread over the sphere, 0 when they have collapsed to a point. The two similarities are mean
    cosines, of queries with their positive and with their negatives.

    The gradient is the mean over processes, and so are the running statistics after the step: those of a single
    process with as many BN groups (see GroupedBatchNorm2d).

    Raises:
        UserError: the loss is not finite; raised on every process, before the weights move.
    """
    generator = torch_generator(run.seed, "shuffle", progress.epoch, progress.step)
    shuffle = torch.randperm(len(views) * world_size(), generator=generator).to(run.device)
    with autocast(run.device, run.precision):
        logits, q = model(normalise(views[:, 0]), normalise(views[:, 1]), shuffle)
    # A method may have several queries per image; an image's loss is the sum over them.
    loss = contrastive_loss(logits) * (len(logits) / len(views))
    seen = logits.detach()
    accuracy = 100 * (seen.argmax(dim=1) == 0).float().mean()
    cosines = (run.recipe.temperature * part.mean() for part in (seen[:, 0], seen[:, 1:]))
    means = sum_over_ranks(torch.stack([loss.detach(), accuracy, *cosines])) / world_size()
    if not means[0].isfinite():
        raise UserError(
            f"epoch {progress.epoch + 1}, step {progress.step + 1}: expected a finite loss, found {means[0].item()}; "
            f"lower --learning-rate or use --precision fp32; checkpoints in {run.out} are untouched"
        )
    optimizer.zero_grad()
    (loss / world_size()).backward()
    sum_gradients(parameter for parameter in model.parameters() if parameter.requires_grad)
    optimizer.step()
    average_over_ranks([buffer for name, buffer in model.named_buffers() if ".running_" in name])
    spread = gather_tensors(q).std(dim=0).mean() * q.shape[1] ** 0.5
    names = ("loss", "accuracy", "positive_similarity", "negative_similarity")
    return dict(zip(names, means.tolist(), strict=True)) | {"embedding_spread": spread.item()}


def make_normaliser(run: TrainingRun) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function from uint8 views (n, 3, S, S) on any device to normalised float32 ones on the run's device."""
    augmentation = run.recipe.augmentation
    constants: Any = (augmentation.mean, augmentation.std)
    mean, std = (torch.tensor(values, device=run.device).view(3, 1, 1) for values in constants)

    def normalise(views: torch.Tensor) -> torch.Tensor:
        images = views.to(run.device, non_blocking=True, memory_format=torch.channels_last)
        return (images.float() / 255 - mean) / std

    return normalise
