"""Batch normalisation in groups: each group of images has statistics of its own, as each device of a machine has."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from mocobench.runtime.distributed import gather_tensors, sum_over_ranks, world_size


class GroupedBatchNorm2d(nn.BatchNorm2d):
    """BN whose training statistics are those of one of `num_groups` equal, consecutive parts of the whole batch.

    The whole batch is that of all processes. They share the groups out, or all make up a single one ("Global BN":
    SimCLR, arXiv 2002.05709, section 2.2). Names and shapes are BatchNorm2d's. The running statistics move once a step,
    towards the mean over the groups' statistics: those of several processes that average theirs after each step, and
    those of the authors' CIFAR-10 demo, in which one device plays eight. In eval mode there is no difference to
    BatchNorm2d.
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor
    num_batches_tracked: torch.Tensor
    momentum: float

    def __init__(self, num_features: int, *, num_groups: int) -> None:
        super().__init__(num_features)
        self.num_groups = num_groups

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, C, H, W) -> (n, C, H, W), of the n images of this process."""
        if not self.training or self.num_groups == world_size() == 1:
            return super().forward(images)
        self.num_batches_tracked += 1
        if self.num_groups == 1:
            return self._normalise_over_processes(images)
        num_own = self.num_groups // world_size()
        assert len(images) % num_own == 0, (len(images), num_own)
        means, variances = (
            statistic.repeat(num_own, 1) for statistic in (self.running_mean, self.running_var)
        )  # gxC each; every group of this process moves a copy of its own
        outputs = [
            F.batch_norm(group, mean, variance, self.weight, self.bias, True, self.momentum, self.eps)
            for group, mean, variance in zip(images.chunk(num_own), means, variances, strict=True)
        ]
        self.running_mean.copy_(means.mean(dim=0))
        self.running_var.copy_(variances.mean(dim=0))
        return torch.cat(outputs)

    def _normalise_over_processes(self, images: torch.Tensor) -> torch.Tensor:
        mean, variance = _statistics_over_processes(images.detach())
        count = images.numel() / images.shape[1] * world_size()
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        normalised: torch.Tensor = _NormaliseOverProcesses.apply(
            images, mean, variance, self.weight, self.bias, self.eps
        )
        return normalised


class GroupedBatchNorm1d(GroupedBatchNorm2d):
    """The same for features (n, C)."""

    def _check_input_dim(self, input: torch.Tensor) -> None:
        assert input.ndim == 2, input.shape


def _statistics_over_processes(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and biased variance (C,) of the channels of (n, C, ...) over all processes, which have n images each."""
    precise = images.to(torch.promote_types(images.dtype, torch.float32))
    variance, mean = torch.var_mean(precise, dim=_all_but_channels(images), correction=0)
    means, variances = gather_tensors(torch.stack([mean, variance])[None]).unbind(dim=1)  # PxC each, of P processes
    mean = means.mean(dim=0)
    return mean, (variances + (means - mean).square()).mean(dim=0)


class _NormaliseOverProcesses(torch.autograd.Function):
    """weight * x + bias with x = (images - mean) / sqrt(variance + eps), mean and variance those of all processes.

    The gradient of the images is the one through those statistics, so it holds what every process makes of them; that
    of weight and bias is this process's share, as that of any parameter is before the gradients are summed.
    """

    @staticmethod
    def forward(
        context: Any,
        images: torch.Tensor,
        mean: torch.Tensor,
        variance: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        eps: float,
    ) -> torch.Tensor:
        context.save_for_backward(images, mean, variance, weight)
        context.eps = eps
        return F.batch_norm(images, mean, variance, weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        images, mean, variance, weight = context.saved_tensors
        kind = images.dtype
        precise = torch.promote_types(kind, torch.float32)  # of sums over many pixels
        images, gradient = images.to(precise), gradient.to(precise)
        normalised = F.batch_norm(images, mean, variance, None, None, False, 0.0, context.eps)
        others = _all_but_channels(images)
        of_bias, of_weight = gradient.sum(dim=others), (gradient * normalised).sum(dim=others)
        count = images.numel() / images.shape[1] * world_size()
        means = sum_over_ranks(torch.stack([of_bias, of_weight])) / count  # 2xC
        shape = [1, -1] + [1] * (images.ndim - 2)
        of_bias_mean, of_weight_mean = (part.view(shape) for part in means)
        scale = (weight / (variance + context.eps).sqrt()).view(shape)
        of_images = scale * (gradient - of_bias_mean - normalised * of_weight_mean)
        return of_images.to(kind), None, None, of_weight.to(weight.dtype), of_bias.to(weight.dtype), None


def _all_but_channels(images: torch.Tensor) -> list[int]:
    return [dim for dim in range(images.ndim) if dim != 1]
