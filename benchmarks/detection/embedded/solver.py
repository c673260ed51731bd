"""SGD as Detectron2 sets it up: no decay on norms, linear warm-up, steps."""

import torch
from torch import nn

# Batch normalisation within one process, and over all of them.
NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


def build_optimizer(
    model: nn.Module, *, learning_rate: float, momentum: float, weight_decay: float, weight_decay_norm: float
) -> torch.optim.SGD:
    """SGD over all parameters; those of norm layers have a weight decay of their own, biases have the weights'."""
    norm: list[nn.Parameter] = []
    other: list[nn.Parameter] = []
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        (norm if isinstance(module, NORMS) else other).extend(own)
    groups = [
        {"params": other, "weight_decay": weight_decay},
        {"params": norm, "weight_decay": weight_decay_norm},
    ]
    return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum)


def learning_rate_factor(
    iteration: int,
    *,
    decay_iterations: tuple[int, ...],
    decay_factor: float,
    warmup_iterations: int,
    warmup_factor: float,
) -> float:
    """What the learning rate is multiplied by at an iteration, counted from 0.

    The warm-up is a straight line from `warmup_factor` to the schedule's value at its end.
    """

    def decayed(at: int) -> float:
        return decay_factor ** sum(at >= step for step in decay_iterations)

    if iteration >= warmup_iterations:
        return decayed(iteration)
    start, end = warmup_factor * decayed(0), decayed(warmup_iterations)
    return start + (end - start) * iteration / warmup_iterations
