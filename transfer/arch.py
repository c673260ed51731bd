"""ResNets by name, and what a name says.

resnet50               four stages of (3, 4, 6, 3) blocks; He et al., arXiv 1512.03385, Table 1
wide_resnet50_2        the 3x3 convolutions are twice as wide, as torchvision has it; Zagoruyko, Komodakis, 1605.07146
resnet50w4             everything is four times as wide, as SimCLR and SwAV have it
resnet18-cifar         a stem for small pictures: 3x3, stride 1, no max-pool
resnet18-cifar-pad2    the same with a padding of 2, as solo-learn has it
resnet18-cifar-linear  the same, padding 1 again, without a ReLU, as networks cut out of Lightly's ResNetGenerator
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mocobench.runtime.errors import UserError

# Depth -> (bottleneck blocks?, blocks in each stage)
DEPTHS = {
    18: (False, (2, 2, 2, 2)),
    34: (False, (3, 4, 6, 3)),
    50: (True, (3, 4, 6, 3)),
    101: (True, (3, 4, 23, 3)),
    152: (True, (3, 8, 36, 3)),
}
BASE_WIDTH = 64  # channels of the stem and of the first stage's 3x3 convolutions
TORCHVISION_WIDTH = 64  # the same in the networks that torchvision's constructor makes, whatever it is told


@dataclass(frozen=True)
class Stem:
    """What comes before the first stage: a convolution with BN, mostly a ReLU and a 3x3 max-pool with stride 2."""

    kernel: int
    stride: int
    padding: int
    has_max_pool: bool
    has_relu: bool = True


# The end of a name -> the stem
STEMS = {
    "": Stem(kernel=7, stride=2, padding=3, has_max_pool=True),
    "-cifar": Stem(kernel=3, stride=1, padding=1, has_max_pool=False),
    "-cifar-pad2": Stem(kernel=3, stride=1, padding=2, has_max_pool=False),
    "-cifar-linear": Stem(kernel=3, stride=1, padding=1, has_max_pool=False, has_relu=False),
}
MOST_WIDE = 9  # times the usual width; SwAV's widest network is 5 times as wide
NAME = re.compile(r"(?:wide_resnet(\d+)_([2-9])|resnet(\d+)(?:w([2-9]))?)(-cifar(?:-pad2|-linear)?)?")


@dataclass(frozen=True)
class Arch:
    """A ResNet; `width` multiplies every convolution, `inner_width` the 3x3 ones of bottlenecks only."""

    depth: int
    width: int = 1
    inner_width: int = 1
    stem_name: str = ""

    @property
    def name(self) -> str:
        base = f"resnet{self.depth}" if self.width == 1 else f"resnet{self.depth}w{self.width}"
        return (base if self.inner_width == 1 else f"wide_{base}_{self.inner_width}") + self.stem_name

    @property
    def has_bottlenecks(self) -> bool:
        return DEPTHS[self.depth][0]

    @property
    def blocks(self) -> tuple[int, ...]:
        """Blocks in each of the four stages."""
        return DEPTHS[self.depth][1]

    @property
    def stem(self) -> Stem:
        return STEMS[self.stem_name]

    @property
    def feature_size(self) -> int:
        """Channels of the pooled feature."""
        return 8 * BASE_WIDTH * self.width * (4 if self.has_bottlenecks else 1)


def parse_arch(name: str) -> Arch:
    """The architecture of a name.

    Raises:
        UserError: the name is not one of ours.
    """
    match = NAME.fullmatch(name)
    if match is not None:
        wide_depth, inner_width, depth, width, stem_name = match.groups()
        arch = Arch(int(wide_depth or depth), int(width or 1), int(inner_width or 1), stem_name or "")
        if arch.depth in DEPTHS and (arch.has_bottlenecks or arch.inner_width == 1):
            return arch
    depths = ", ".join(map(str, DEPTHS))
    raise UserError(
        f"{name}: expected the name of a ResNet, such as resnet50, wide_resnet50_2, resnet50w2 or resnet18-cifar "
        f"({depths} layers)"
    )


def deduce_arch(shapes: Mapping[str, tuple[int, ...]], small_stem: str) -> Arch | str:
    """The architecture that canonical names and shapes tell, or in words what was found instead.

    `small_stem` names the stem that a 3x3 first convolution stands for: its shape tells neither padding nor ReLU.
    """
    blocks = {tuple(name.split(".")[:2]) for name in shapes if name.startswith("layer")}
    per_stage = tuple(sum(stage == f"layer{number}" for stage, _ in blocks) for number in (1, 2, 3, 4))
    has_bottlenecks = any(name.endswith(".conv3.weight") for name in shapes)
    depth = next((depth for depth, kind in DEPTHS.items() if kind == (has_bottlenecks, per_stage)), None)
    if depth is None:
        return f"{list(per_stage)} {'bottleneck' if has_bottlenecks else 'basic'} blocks"
    channels, _, *kernel = (*shapes.get("conv1.weight", ()), 0, 0)[:4]
    inner_channels = (*shapes.get("layer1.0.conv2.weight", ()), 0)[0]
    # What does not divide is left to the check of every shape against the architecture that is nearest.
    width = max(channels // BASE_WIDTH, 1)
    inner_width = max(inner_channels // (BASE_WIDTH * width), 1) if has_bottlenecks else 1
    if max(width, inner_width) > MOST_WIDE:
        return f"{channels} and {inner_channels} channels in the first convolutions"
    return Arch(depth, width, inner_width, small_stem if kernel == [3, 3] else "")


def make_resnet(arch: Arch) -> nn.Module:
    """torchvision's ResNet, freshly initialised by the current generator, with the identity as its classifier."""
    from torchvision.models import resnet

    block = resnet.Bottleneck if arch.has_bottlenecks else resnet.BasicBlock
    network = resnet.ResNet(block, list(arch.blocks), width_per_group=TORCHVISION_WIDTH * arch.inner_width)
    network.fc = nn.Identity()
    if BASE_WIDTH * arch.width != TORCHVISION_WIDTH:
        _widen(network, block, arch)
    if arch.stem != STEMS[""]:
        network.conv1 = _stem_conv(arch)
    if not arch.stem.has_max_pool:
        network.maxpool = nn.Identity()
    if not arch.stem.has_relu:
        network.relu = nn.Identity()  # the stem's alone: blocks have their own
    return network


def _widen(network: Any, block: Any, arch: Arch) -> None:
    """Make every layer again with other channels: torchvision's own constructor has no number for it."""
    network.inplanes = BASE_WIDTH * arch.width
    network.conv1, network.bn1 = _stem_conv(arch), nn.BatchNorm2d(network.inplanes)
    for stage, num_blocks in enumerate(arch.blocks):
        planes = BASE_WIDTH * arch.width * 2**stage
        layer = network._make_layer(block, planes, num_blocks, stride=1 if stage == 0 else 2)
        setattr(network, f"layer{stage + 1}", layer)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _stem_conv(arch: Arch) -> nn.Conv2d:
    stem = arch.stem
    conv = nn.Conv2d(3, BASE_WIDTH * arch.width, stem.kernel, stem.stride, stem.padding, bias=False)
    torch.nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv
