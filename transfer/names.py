"""How a format names a ResNet's tensors, as data, read both ways.

Canonical names are torchvision's: `conv1.weight`, `layer1.0.bn2.running_mean`, `layer1.0.downsample.0.weight`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

BLOCK_MODULES = ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "downsample.0", "downsample.1")
NORMS = ("bn1", "bn2", "bn3", "downsample.1")
CONV_TENSORS = {"weight": ".weight"}
NORM_TENSORS = {name: f".{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}
MOST_BLOCKS = 36  # in a stage: the third of a ResNet-152
IN_A_BLOCK = re.compile(r"(layer[1-4])\.(\d+)\.(.+)")


@dataclass(frozen=True, eq=False)
class NameTable:
    """Parts of canonical names -> what a format has in their place.

    `stages` are templates for the start of a block's names, with `{block}` for its number. `convs` and `norms` are the
    ends of names; a tensor that is not listed there is one that the format does not have.
    """

    stem: Mapping[str, str]
    stages: Mapping[str, str]
    blocks: Mapping[str, str]
    convs: Mapping[str, str] = field(default_factory=lambda: CONV_TENSORS)
    norms: Mapping[str, str] = field(default_factory=lambda: NORM_TENSORS)

    def theirs(self, canonical: str) -> str:
        """The format's name for a canonical one.

        Raises:
            ValueError: the name is not one of a ResNet without its classifier, or the format has no such tensor.
        """
        module, _, tensor = canonical.rpartition(".")
        match = IN_A_BLOCK.fullmatch(module)
        part = match[3] if match else module
        named = (self.stages[match[1]].format(block=match[2]), self.blocks) if match else ("", self.stem)
        start, modules = named
        ends = self.norms if part in NORMS else self.convs
        if part not in modules or tensor not in ends:
            raise ValueError(f"{canonical}: expected the name of a ResNet's tensor, without a classifier")
        return start + modules[part] + ends[tensor]

    def ours(self, theirs: str) -> str:
        """The canonical name for the format's: the inverse of `theirs`.

        Raises:
            ValueError: the name is not one of a ResNet without its classifier.
        """
        if theirs not in self._inverse:
            raise ValueError(f"{theirs}: expected the name of a ResNet's tensor, without a classifier")
        return self._inverse[theirs]

    @cached_property
    def _inverse(self) -> dict[str, str]:
        modules = ["conv1", "bn1"] + [
            f"{stage}.{block}.{part}" for stage in self.stages for block in range(MOST_BLOCKS) for part in self.blocks
        ]
        canonical = [
            f"{module}.{tensor}"
            for module in modules
            for tensor in (self.norms if module.endswith(NORMS) else self.convs)
        ]
        inverse = {self.theirs(name): name for name in canonical}
        assert len(inverse) == len(canonical), "two tensors under one name"
        return inverse


TORCHVISION_NAMES = NameTable(
    stem={"conv1": "conv1", "bn1": "bn1"},
    stages={f"layer{n}": f"layer{n}.{{block}}." for n in (1, 2, 3, 4)},
    blocks={name: name for name in BLOCK_MODULES},
)
# list(resnet.children()) as an nn.Sequential: conv1, bn1, relu, maxpool, layer1, ...
INDEXED_NAMES = NameTable(
    stem={"conv1": "0", "bn1": "1"},
    stages={f"layer{n}": f"{n + 3}.{{block}}." for n in (1, 2, 3, 4)},
    blocks=TORCHVISION_NAMES.blocks,
)
# The ResNets for CIFAR of many small projects, whose shortcut is no `downsample`.
SHORTCUT_NAMES = NameTable(
    stem=TORCHVISION_NAMES.stem,
    stages=TORCHVISION_NAMES.stages,
    blocks={**TORCHVISION_NAMES.blocks, "downsample.0": "shortcut.0", "downsample.1": "shortcut.1"},
)
