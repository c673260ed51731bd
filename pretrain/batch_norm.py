"""Batch normalisation in groups: one process plays several devices, each with statistics of its own."""

import torch
from torch import nn


class GroupedBatchNorm2d(nn.BatchNorm2d):
    """BN whose training statistics are those of one of `num_groups` equal, consecutive parts of the batch.

    Same names and shapes as BatchNorm2d. The running statistics follow each group in turn, so that they average
    over all of them. In eval mode there is no difference to BatchNorm2d.
    """

    def __init__(self, num_features: int, *, num_groups: int) -> None:
        super().__init__(num_features)
        self.num_groups = num_groups

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, C, H, W); N is a multiple of `num_groups`."""
        if not self.training or self.num_groups == 1:
            return super().forward(images)
        assert len(images) % self.num_groups == 0, (len(images), self.num_groups)
        normalise = super().forward
        return torch.cat([normalise(group) for group in images.chunk(self.num_groups)])
