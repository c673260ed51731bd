"""Feature pyramid network: features of one width at five scales (Lin et al., arXiv 1612.03144)."""

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.detection.embedded.layers import ConvNorm, fill_xavier
from benchmarks.detection.embedded.resnet import STAGES, ResNet

CHANNELS = 256
# A level's number is the log2 of its stride. P2 to P5 stand on res2 to res5; P6 halves P5, for the largest anchors.
LEVELS = (2, 3, 4, 5)


class FPN(nn.Module):
    """Images (N, 3, H, W) to P2, ..., P6, finest first: (N, 256, H / 4, W / 4) to (N, 256, H / 64, W / 64).

    Each level is the stage's features through a 1x1 convolution plus the level above at twice its size, then through
    a 3x3 convolution; every convolution has a norm.
    """

    strides = (4, 8, 16, 32, 64)
    channels = (CHANNELS,) * len(strides)
    size_divisibility = 32  # else a level would not be twice the size of the one above

    def __init__(self, *, stride_in_1x1: bool) -> None:
        super().__init__()
        self.bottom_up = ResNet(outputs=tuple(STAGES), stride_in_1x1=stride_in_1x1)
        for level, in_channels in zip(LEVELS, self.bottom_up.channels, strict=True):
            lateral = ConvNorm(in_channels, CHANNELS, kernel=1)
            output = ConvNorm(CHANNELS, CHANNELS, kernel=3)
            fill_xavier(lateral)
            fill_xavier(output)
            self.add_module(f"fpn_lateral{level}", lateral)
            self.add_module(f"fpn_output{level}", output)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        pyramid: list[torch.Tensor] = []
        above: torch.Tensor | None = None
        for level, features in reversed(list(zip(LEVELS, self.bottom_up(images), strict=True))):
            merged = self.get_submodule(f"fpn_lateral{level}")(features)
            if above is not None:
                # In place: the enlarged level above is needed for nothing else.
                merged = F.interpolate(above, scale_factor=2.0, mode="nearest").add_(merged)
            pyramid.insert(0, self.get_submodule(f"fpn_output{level}")(merged))
            above = merged
        return [*pyramid, F.max_pool2d(pyramid[-1], kernel_size=1, stride=2)]
