"""A frozen ResNet as it runs fast: BN is inside the convolutions, everything is channels-last and written in place.

N: images, C: channels, H, W: height and width.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from mocobench.runtime.errors import UserError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PER_THREAD = 2  # images at a time on a CPU: their activations stay in its cache


@dataclass(frozen=True)
class FoldedConv:
    """A convolution and the BN after it: `weight` (C_out, C_in, kH, kW) and `bias` (C_out,)."""

    weight: torch.Tensor
    bias: torch.Tensor
    stride: tuple[int, int]
    padding: tuple[int, int]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Of x (N, C_in, H, W)."""
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)


def fold(conv: nn.Conv2d, bn: nn.BatchNorm2d, *, precision: str) -> FoldedConv:
    """The same function in eval mode: w / sqrt(variance + eps) takes the place of BN's w, computed in float64."""
    assert bn.running_mean is not None
    assert bn.running_var is not None
    assert conv.bias is None
    scale = bn.weight.double() / (bn.running_var.double() + bn.eps).sqrt()
    weight = (conv.weight.double() * scale.view(-1, 1, 1, 1)).to(DTYPES[precision])
    weight = weight.contiguous(memory_format=torch.channels_last)
    bias = (bn.bias.double() - bn.running_mean.double() * scale).to(DTYPES[precision])
    assert isinstance(conv.padding, tuple)
    (stride, _), (padding, _) = conv.stride, conv.padding
    return FoldedConv(weight, bias, (stride, stride), (padding, padding))


@dataclass(frozen=True)
class FoldedBlock:
    """A residual block: convolutions in a row, and that of the shortcut where it has one."""

    convs: tuple[FoldedConv, ...]
    shortcut: FoldedConv | None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Of x (N, C_in, H, W): (N, C_out, H', W')."""
        y = x
        for conv in self.convs[:-1]:
            y = conv(y).relu_()
        return self.convs[-1](y).add_(x if self.shortcut is None else self.shortcut(x)).relu_()


@dataclass(frozen=True)
class FoldedResNet:
    """A torchvision ResNet without its classifier, in eval mode and never to be trained, by its folded parts.

    `grid` is how its last map is pooled: see `pool`.
    """

    stem: FoldedConv
    relu: nn.Module
    max_pool: nn.Module
    blocks: tuple[FoldedBlock, ...]
    grid: int = 1

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Pooled features (N, C * grid * grid), float32, of prepared images (N, 3, H, W), float32.

        Raises:
            UserError: the images are too small for the grid.
        """
        images = images.to(self.stem.weight.dtype, memory_format=torch.channels_last)
        part = PER_THREAD * torch.get_num_threads() if images.device.type == "cpu" else len(images)
        return torch.cat([self._features(few) for few in images.split(part)])

    def _features(self, images: torch.Tensor) -> torch.Tensor:
        x: torch.Tensor = self.max_pool(self.relu(self.stem(images)))
        for block in self.blocks:
            x = block(x)
        if min(x.shape[2:]) < self.grid:
            sides, found = (f"{height} x {width}" for height, width in (x.shape[2:], images.shape[2:]))
            raise UserError(
                f"--grid {self.grid}: expected at most the sides of the network's last map, found {sides} of images of "
                f"{found}; use a smaller --grid or a larger --image-size"
            )
        return pool(x.float(), self.grid)

    def tensors(self) -> Iterator[torch.Tensor]:
        """Every tensor that a feature depends on, in a fixed order."""
        for conv in (self.stem, *(conv for block in self.blocks for conv in (*block.convs, block.shortcut))):
            if conv is not None:
                yield from (conv.weight, conv.bias)


def pool(last_map: torch.Tensor, grid: int) -> torch.Tensor:
    """A map (N, C, H, W) averaged in `grid` x `grid` overlapping windows of stride 1, flat: (N, C * grid * grid).

    The windows are the largest of which so many fit: 6 x 6 of a 7 x 7 map for a grid of 2, all of it for one of 1. Of a
    channel they are in a row, as torch's flatten has (C, grid, grid).
    """
    if grid == 1:
        return last_map.mean(dim=(2, 3))
    window = [side - grid + 1 for side in last_map.shape[2:]]
    return F.avg_pool2d(last_map, window, stride=1).flatten(1)


@torch.no_grad()
def fold_resnet(network: Any, *, precision: str, grid: int = 1) -> FoldedResNet:
    """Of torchvision's ResNet, on its device; the network keeps its own tensors. `grid` as in `pool`."""
    blocks = []
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        for block in stage:
            numbers = [number for number in (1, 2, 3) if hasattr(block, f"conv{number}")]
            convs = [
                fold(getattr(block, f"conv{number}"), getattr(block, f"bn{number}"), precision=precision)
                for number in numbers
            ]
            shortcut = None if block.downsample is None else fold(*block.downsample, precision=precision)
            blocks.append(FoldedBlock(tuple(convs), shortcut))
    stem = fold(network.conv1, network.bn1, precision=precision)
    return FoldedResNet(stem, network.relu, network.maxpool, tuple(blocks), grid)
