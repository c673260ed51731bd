"""A ResNet run straight from a file's own tensor names.

It shares no code with the name tables of the sources and targets nor with torchvision's modules, so that two files
which give the same features through it hold the same function, whatever their names.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F

BN_EPSILON = 1e-5  # PyTorch's and Detectron2's


@dataclass(frozen=True)
class Spelling:
    """How a format spells a ResNet's parts; `{stage}` counts from `first_stage`, `{n}` is a convolution's number."""

    stem: str
    stem_norm: str
    conv: str
    norm: str
    shortcut: str
    shortcut_norm: str
    block: str
    first_stage: int = 1
    prefix: str = ""


TORCHVISION = Spelling(
    stem="conv1",
    stem_norm="bn1",
    conv="conv{n}",
    norm="bn{n}",
    shortcut="downsample.0",
    shortcut_norm="downsample.1",
    block="layer{stage}.{block}.",
)
DETECTRON2 = Spelling(
    stem="stem.conv1",
    stem_norm="stem.conv1.norm",
    conv="conv{n}",
    norm="conv{n}.norm",
    shortcut="shortcut",
    shortcut_norm="shortcut.norm",
    block="res{stage}.{block}.",
    first_stage=2,
)


@torch.inference_mode()
def features(
    tensors: Mapping[str, torch.Tensor], spelling: Spelling, images: torch.Tensor, *, stride_in_1x1: bool = False
) -> torch.Tensor:
    """Pooled features (N, 512 or 2048) of prepared images (N, 3, H, W).

    The network is that of He et al., arXiv 1512.03385, Table 1; the bottleneck's stride is in its 3x3 convolution
    (as torchvision and MoCo have it) unless `stride_in_1x1` (as the paper has it).

    Raises:
        KeyError: a tensor that the network needs is not among `tensors`.
    """

    def conv_bn(x: torch.Tensor, conv: str, norm: str, stride: int) -> torch.Tensor:
        # Some checkpoints keep weights channels-last; that is no part of the function, but it moves the rounding.
        # Not contiguous(), which leaves the strides of a 1x1 convolution as they are.
        weight = tensors[f"{spelling.prefix}{conv}.weight"].clone(memory_format=torch.contiguous_format)
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        mean, variance, scale, shift = (
            tensors[f"{spelling.prefix}{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, scale, shift, eps=BN_EPSILON)

    def residual_block(x: torch.Tensor, block: str, num_convs: int, strides: list[int]) -> torch.Tensor:
        y = x
        for n in range(1, num_convs + 1):
            y = conv_bn(y, block + spelling.conv.format(n=n), block + spelling.norm.format(n=n), strides[n - 1])
            y = y if n == num_convs else y.relu()
        if f"{spelling.prefix}{block}{spelling.shortcut}.weight" in tensors:
            x = conv_bn(x, block + spelling.shortcut, block + spelling.shortcut_norm, max(strides))
        return (x + y).relu()

    x = conv_bn(images, spelling.stem, spelling.stem_norm, stride=2).relu()  # N x 64 x H/2 x W/2
    x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)  # N x 64 x H/4 x W/4
    for stage in range(4):
        for index in range(_num_blocks(tensors, spelling, stage)):
            block = spelling.block.format(stage=spelling.first_stage + stage, block=index)
            is_bottleneck = f"{spelling.prefix}{block}{spelling.conv.format(n=3)}.weight" in tensors
            stride = 2 if stage > 0 and index == 0 else 1
            bottleneck_strides = [stride, 1, 1] if stride_in_1x1 else [1, stride, 1]
            strides = bottleneck_strides if is_bottleneck else [stride, 1]
            x = residual_block(x, block, len(strides), strides)  # N x C x H/4/2^stage x W/4/2^stage
    return x.mean(dim=(2, 3))


def _num_blocks(tensors: Mapping[str, torch.Tensor], spelling: Spelling, stage: int) -> int:
    first_conv = spelling.prefix + spelling.block + spelling.conv.format(n=1) + ".weight"
    index = 0
    while first_conv.format(stage=spelling.first_stage + stage, block=index) in tensors:
        index += 1
    return index
