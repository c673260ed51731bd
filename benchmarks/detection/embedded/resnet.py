"""ResNet-50 in Detectron2's words: stem, res2 to res5, each convolution with its norm below it."""

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.detection.embedded.layers import ConvNorm

STEM_CHANNELS = 64
# Blocks, channels inside a block, channels out of it, stride (He et al. 2015, table 1).
STAGES = {"res2": (3, 64, 256, 1), "res3": (4, 128, 512, 2), "res4": (6, 256, 1024, 2), "res5": (3, 512, 2048, 2)}


class Stem(nn.Module):
    """7x7 convolution of stride 2 and 3x3 max-pool of stride 2."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, STEM_CHANNELS, kernel=7, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(F.relu_(self.conv1(x)), kernel_size=3, stride=2, padding=1)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 and a shortcut; the stride is in the first 1x1 (the MSRA models) or in the 3x3 (torchvision)."""

    def __init__(self, in_channels: int, inside: int, out_channels: int, *, stride: int, stride_in_1x1: bool) -> None:
        super().__init__()
        self.shortcut: ConvNorm | None = None
        if in_channels != out_channels:
            self.shortcut = ConvNorm(in_channels, out_channels, kernel=1, stride=stride)
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = ConvNorm(in_channels, inside, kernel=1, stride=first)
        self.conv2 = ConvNorm(inside, inside, kernel=3, stride=second)
        self.conv3 = ConvNorm(inside, out_channels, kernel=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu_(self.conv1(x))
        out = F.relu_(self.conv2(out))
        out = self.conv3(out)
        return F.relu_(out + (x if self.shortcut is None else self.shortcut(x)))


def build_stage(name: str, *, stride_in_1x1: bool) -> nn.Sequential:
    """The blocks of `res2`, ..., `res5`."""
    num_blocks, inside, out_channels, stride = STAGES[name]
    # Each stage before doubles the channels; what comes out of the stem is a quarter of what comes out of res2.
    in_channels = STEM_CHANNELS if name == "res2" else out_channels // 2
    blocks = []
    for block in range(num_blocks):
        block_stride = stride if block == 0 else 1
        blocks.append(Bottleneck(in_channels, inside, out_channels, stride=block_stride, stride_in_1x1=stride_in_1x1))
        in_channels = out_channels
    return nn.Sequential(*blocks)


class ResNet(nn.Module):
    """Images (N, 3, H, W) to the features of some stages, finest first: res2 at stride 4, to res5 at stride 32.

    A side of the features is the image's over the stride, rounded up. Stages after the last output are not built.
    """

    size_divisibility = 1  # images of any size will do

    def __init__(self, *, outputs: tuple[str, ...], stride_in_1x1: bool) -> None:
        super().__init__()
        stages = list(STAGES)[: list(STAGES).index(outputs[-1]) + 1]
        self.outputs = outputs
        self.strides = tuple(4 * 2 ** stages.index(name) for name in outputs)
        self.channels = tuple(STAGES[name][2] for name in outputs)
        self.stem = Stem()
        self.stages = tuple(stages)
        for name in stages:
            self.add_module(name, build_stage(name, stride_in_1x1=stride_in_1x1))

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        features = {}
        x = self.stem(images)
        for name in self.stages:
            x = features[name] = self.get_submodule(name)(x)
        return [features[name] for name in self.outputs]


def build_res5(*, stride_in_1x1: bool, extra_norm: bool) -> nn.Sequential:
    """res5 as the head of a C4 detector; `extra_norm` adds a BatchNorm after it (MoCo v1, section 4.2)."""
    res5 = build_stage("res5", stride_in_1x1=stride_in_1x1)
    if extra_norm:
        res5.add_module("norm", nn.BatchNorm2d(STAGES["res5"][2]))
    return res5
