"""Batch normalisation in groups: one process plays several devices, each with statistics of its own."""

import torch
from torch import nn
from torch.nn import functional as F


class GroupedBatchNorm2d(nn.BatchNorm2d):
    """BN whose training statistics are those of one of `num_groups` equal, consecutive parts of the batch.

    Same names and shapes as BatchNorm2d. The running statistics move once a step, towards the mean over the groups'
    statistics: those of several processes that average theirs after each step, and those of the authors' CIFAR-10
    demo, in which one device plays eight. In eval mode there is no difference to BatchNorm2d.
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor
    num_batches_tracked: torch.Tensor
    momentum: float

    def __init__(self, num_features: int, *, num_groups: int) -> None:
        super().__init__(num_features)
        self.num_groups = num_groups

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, C, H, W); N is a multiple of `num_groups`."""
        if not self.training or self.num_groups == 1:
            return super().forward(images)
        assert len(images) % self.num_groups == 0, (len(images), self.num_groups)
        means, variances = (
            statistic.repeat(self.num_groups, 1) for statistic in (self.running_mean, self.running_var)
        )  # GxC each; every group moves a copy of its own
        outputs = [
            F.batch_norm(group, mean, variance, self.weight, self.bias, True, self.momentum, self.eps)
            for group, mean, variance in zip(images.chunk(self.num_groups), means, variances, strict=True)
        ]
        self.running_mean.copy_(means.mean(dim=0))
        self.running_var.copy_(variances.mean(dim=0))
        self.num_batches_tracked += 1
        return torch.cat(outputs)


class GroupedBatchNorm1d(GroupedBatchNorm2d):
    """The same for features (N, C)."""

    def _check_input_dim(self, input: torch.Tensor) -> None:
        assert input.ndim == 2, input.shape
