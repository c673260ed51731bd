"""BatchNorm's running statistics when the ranks share the passes of a batch: as if one had made them all, in order."""

import torch
from torch import nn

from mocobench.runtime.distributed import part_sizes, rank, sum_over_ranks, world_size


class SharedStatistics:
    """The running means and variances of a network; make it before a rank's passes, then `merge`.

    A pass moves a statistic r to (1 - m) r + m s, so P passes move it to (1 - m)^P r plus a sum over the passes. Rank
    by rank that sum is what its own passes have added, times (1 - m) for each pass that comes after them.
    """

    def __init__(self, network: nn.Module) -> None:
        modules = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        self._statistics = [getattr(module, name) for module in modules for name in ("running_mean", "running_var")]
        self._before = torch.cat(self._statistics) if world_size() > 1 else None
        (momentum,) = {module.momentum for module in modules}
        assert momentum is not None
        self._kept = 1 - momentum

    def merge(self, num_passes: int) -> None:
        """Join the statistics after `num_passes` passes, of which the ranks have made `part_sizes(num_passes)`."""
        if self._before is None:
            return
        sizes = part_sizes(num_passes)
        added = torch.cat(self._statistics) - self._kept ** sizes[rank()] * self._before
        together = sum_over_ranks(self._kept ** sum(sizes[rank() + 1 :]) * added)
        together += self._kept**num_passes * self._before
        for statistic, value in zip(self._statistics, together.split([len(s) for s in self._statistics]), strict=True):
            statistic.copy_(value)
