"""A frozen ResNet as it runs fast: BN is inside the convolutions, everything is channels-last and written in place.

N: images, C: channels, H, W: height and width.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

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
    """A torchvision ResNet without its classifier, in eval mode and never to be trained, by its folded parts."""

    stem: FoldedConv
    max_pool: nn.Module
    blocks: tuple[FoldedBlock, ...]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Pooled features (N, C), float32, of prepared images (N, 3, H, W), float32."""
        images = images.to(self.stem.weight.dtype, memory_format=torch.channels_last)
        part = PER_THREAD * torch.get_num_threads() if images.device.type == "cpu" else len(images)
        return torch.cat([self._features(few) for few in images.split(part)])

    def _features(self, images: torch.Tensor) -> torch.Tensor:
        x: torch.Tensor = self.max_pool(self.stem(images).relu_())
        for block in self.blocks:
            x = block(x)
        return x.float().mean(dim=(2, 3))

    def tensors(self) -> Iterator[torch.Tensor]:
        """Every tensor that a feature depends on, in a fixed order."""
        for conv in (self.stem, *(conv for block in self.blocks for conv in (*block.convs, block.shortcut))):
            if conv is not None:
                yield from (conv.weight, conv.bias)


@torch.no_grad()
def fold_resnet(network: Any, *, precision: str) -> FoldedResNet:
    """Of torchvision's ResNet, on its device; the network keeps its own tensors."""
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
    return FoldedResNet(fold(network.conv1, network.bn1, precision=precision), network.maxpool, tuple(blocks))
