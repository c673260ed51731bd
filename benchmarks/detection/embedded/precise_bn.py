"""PreciseBN: statistics of BatchNorm over many batches of a fixed model (Wu and Johnson, arXiv 2105.07576).

In one process the estimator, the order and the precision of its sums are those of fvcore, which Detectron2 uses.
"""

from collections.abc import Callable, Iterable

import torch
from torch import nn

from benchmarks.detection.embedded.solver import NORMS
from mocobench.runtime.distributed import sum_over_ranks, world_size


class _Population:
    """Mean and variance over all the values that reach one BatchNorm."""

    def __init__(self, norm: nn.BatchNorm2d | nn.SyncBatchNorm) -> None:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        self.norm, self.momentum = norm, norm.momentum
        self.mean = torch.zeros_like(norm.running_mean)
        self.mean_square = torch.zeros_like(norm.running_var)
        self.count = 0
        # With momentum 1 the running statistics are those of the batch just seen.
        norm.momentum = 1.0
        self.hook = norm.register_forward_hook(self._add)

    def _add(self, norm: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        count = inputs[0].numel() // inputs[0].shape[1]
        if isinstance(norm, nn.SyncBatchNorm):  # it has just seen the batches of all ranks as one
            count = int(sum_over_ranks(torch.tensor(count, device=inputs[0].device)))
        if count == 0:  # no region had an object
            return
        self.count += count
        mean, variance = self.norm.running_mean, self.norm.running_var
        assert mean is not None
        assert variance is not None
        # torch keeps the unbiased variance; the population's needs the batch's own.
        mean_square = mean.square() + variance * ((count - 1) / count)
        self.mean += (mean - self.mean) * (count / self.count)
        self.mean_square += (mean_square - self.mean_square) * (count / self.count)

    def join_ranks(self) -> None:
        """Make of each rank's population the one of them all."""
        count = torch.tensor([self.count], dtype=torch.float64, device=self.mean.device)
        sums = torch.stack((self.mean, self.mean_square)).double() * count
        sum_over_ranks(count)
        sum_over_ranks(sums)
        self.count = int(count)
        self.mean, self.mean_square = (sums / count.clamp(min=1)).to(self.mean.dtype)

    def finish(self) -> None:
        """Write the statistics into the layer."""
        if self.count:
            assert self.norm.running_mean is not None
            assert self.norm.running_var is not None
            self.norm.running_mean.copy_(self.mean)
            self.norm.running_var.copy_(self.mean_square - self.mean.square())

    def leave(self) -> None:
        """Leave the layer as it was otherwise."""
        self.hook.remove()
        self.norm.momentum = self.momentum


@torch.no_grad()
def set_precise_statistics(model: nn.Module, forwards: Iterable[Callable[[], object]]) -> None:
    """Set every BatchNorm's running statistics to those over all given forward passes of all ranks, in training mode.

    A value counts once, however the batches are cut; afterwards the statistics are the same on every rank.
    """
    populations = [_Population(m) for m in model.modules() if isinstance(m, NORMS)]
    model.train()
    try:
        for forward in forwards:
            forward()
    finally:
        for population in populations:
            population.leave()
    for population in populations:
        if world_size() > 1:
            population.join_ranks()
        population.finish()
