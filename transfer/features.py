"""A ResNet run straight from a file's own tensor names.

It shares no code or data with the name tables of the sources and targets nor with torchvision's modules: each format's
names are written down twice, once as a table to translate them and once as a spelling to run them. So a slip in the one
does not hide itself, and two files which give the same features here hold the same function, whatever their names.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from transfer.arch import STEMS, Stem

BN_EPSILON = 1e-5  # PyTorch's and Detectron2's
STAGES = ("stem", "layer1", "layer2", "layer3", "layer4", "pooled")


@dataclass(frozen=True)
class Spelling:
    """How a format spells a ResNet's parts.

    In a block's parts `{n}` is a convolution's number from 1, `{index}` from 0 and `{letter}` from a. `mean` and
    `variance` are None where BN is an affine map: x * scale + shift.
    """

    stem: str
    stem_norm: str
    stages: tuple[str, str, str, str]
    conv: str
    norm: str
    shortcut: str
    shortcut_norm: str
    weight: str = ".weight"
    scale: str = ".weight"
    shift: str = ".bias"
    mean: str | None = ".running_mean"
    variance: str | None = ".running_var"

    def part(self, template: str, number: int) -> str:
        """The name of a block's convolution or norm, `number` from 0."""
        return template.format(n=number + 1, index=number, letter="abc"[number])


TORCHVISION = Spelling(
    stem="conv1",
    stem_norm="bn1",
    stages=("layer1.{block}.", "layer2.{block}.", "layer3.{block}.", "layer4.{block}."),
    conv="conv{n}",
    norm="bn{n}",
    shortcut="downsample.0",
    shortcut_norm="downsample.1",
)
DETECTRON2 = Spelling(
    stem="stem.conv1",
    stem_norm="stem.conv1.norm",
    stages=("res2.{block}.", "res3.{block}.", "res4.{block}.", "res5.{block}."),
    conv="conv{n}",
    norm="conv{n}.norm",
    shortcut="shortcut",
    shortcut_norm="shortcut.norm",
)
# list(resnet.children()) as an nn.Sequential, which keeps the order and no names
INDEXED = replace(TORCHVISION, stem="0", stem_norm="1", stages=("4.{block}.", "5.{block}.", "6.{block}.", "7.{block}."))


@torch.inference_mode()
def features(
    tensors: Mapping[str, torch.Tensor],
    spelling: Spelling,
    images: torch.Tensor,
    *,
    stem: Stem = STEMS[""],
    stride_in_1x1: bool = False,
) -> dict[str, torch.Tensor]:
    """What every stage makes of prepared images (N, 3, H, W): `stem`, `layer1` to `layer4`, and `pooled` (N, C).

    The network is that of He et al., arXiv 1512.03385, Table 1; the bottleneck's stride is in its 3x3 convolution
    (as torchvision and MoCo have it) unless `stride_in_1x1` (as the paper has it).

    Raises:
        KeyError: a tensor that the network needs is not among `tensors`.
    """

    def conv_bn(x: torch.Tensor, conv: str, norm: str, stride: int, padding: int | None = None) -> torch.Tensor:
        # Some checkpoints keep weights channels-last; that is no part of the function, but it moves the rounding.
        # Not contiguous(), which leaves the strides of a 1x1 convolution as they are.
        weight = tensors[conv + spelling.weight].clone(memory_format=torch.contiguous_format)
        padding = weight.shape[-1] // 2 if padding is None else padding
        x = F.conv2d(x, weight, stride=stride, padding=padding)
        scale, shift = tensors[norm + spelling.scale], tensors[norm + spelling.shift]
        if spelling.mean is None or spelling.variance is None:
            return x * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
        mean, variance = tensors[norm + spelling.mean], tensors[norm + spelling.variance]
        return F.batch_norm(x, mean, variance, scale, shift, eps=BN_EPSILON)

    def residual_block(x: torch.Tensor, block: str, strides: list[int]) -> torch.Tensor:
        y = x
        for number, stride in enumerate(strides):
            conv, norm = spelling.part(spelling.conv, number), spelling.part(spelling.norm, number)
            y = conv_bn(y, block + conv, block + norm, stride)
            y = y if number == len(strides) - 1 else y.relu()
        if block + spelling.shortcut + spelling.weight in tensors:
            x = conv_bn(x, block + spelling.shortcut, block + spelling.shortcut_norm, max(strides))
        return (x + y).relu()

    x = conv_bn(images, spelling.stem, spelling.stem_norm, stem.stride, stem.padding)
    if stem.has_relu:
        x = x.relu()
    if stem.has_max_pool:
        x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
    outputs = {"stem": x}  # N x 64 x H/4 x W/4
    for stage, template in enumerate(spelling.stages):
        for index in range(_num_blocks(tensors, spelling, template)):
            block = template.format(block=index)
            is_bottleneck = block + spelling.part(spelling.conv, 2) + spelling.weight in tensors
            stride = 2 if stage > 0 and index == 0 else 1
            bottleneck_strides = [stride, 1, 1] if stride_in_1x1 else [1, stride, 1]
            x = residual_block(x, block, bottleneck_strides if is_bottleneck else [stride, 1])
        outputs[STAGES[1 + stage]] = x  # N x C x H/4/2^stage x W/4/2^stage
    return outputs | {"pooled": x.mean(dim=(2, 3))}


def _num_blocks(tensors: Mapping[str, torch.Tensor], spelling: Spelling, stage: str) -> int:
    first_conv = spelling.part(spelling.conv, 0) + spelling.weight
    index = 0
    while stage.format(block=index) + first_conv in tensors:
        index += 1
    return index
