"""Detectron2's names for a ResNet's tensors, as a table, and both ways of reading it.

Canonical names are torchvision's (`layer1.0.downsample.0.weight`); Detectron2's are those of its weight files, without
the `backbone.` or `roi_heads.` that a model puts before them (`res2.0.shortcut.weight`).
"""

# Part of a name -> Detectron2's. Parts that are not listed stand for themselves: block numbers, `weight`, ...
STEM_PARTS = {"conv1": "stem.conv1", "bn1": "stem.conv1.norm"}
STAGE_PARTS = {"layer1": "res2", "layer2": "res3", "layer3": "res4", "layer4": "res5"}
BLOCK_PARTS = {
    "conv1": "conv1",
    "conv2": "conv2",
    "conv3": "conv3",
    "bn1": "conv1.norm",
    "bn2": "conv2.norm",
    "bn3": "conv3.norm",
    "downsample.0": "shortcut",
    "downsample.1": "shortcut.norm",
}

_CANONICAL_STEM = {theirs: ours for ours, theirs in STEM_PARTS.items()}
_CANONICAL_STAGE = {theirs: ours for ours, theirs in STAGE_PARTS.items()}
_CANONICAL_BLOCK = {theirs: ours for ours, theirs in BLOCK_PARTS.items()}


def detectron2_name(canonical: str) -> str:
    """`layer1.0.bn2.running_mean` -> `res2.0.conv2.norm.running_mean`.

    Raises:
        ValueError: the name is not one of a ResNet without its classifier.
    """
    return _translate(canonical, STEM_PARTS, STAGE_PARTS, BLOCK_PARTS)


def canonical_name(detectron2: str) -> str:
    """`res2.0.conv2.norm.running_mean` -> `layer1.0.bn2.running_mean`: the inverse of `detectron2_name`.

    Raises:
        ValueError: the name is not one of a ResNet without its classifier.
    """
    return _translate(detectron2, _CANONICAL_STEM, _CANONICAL_STAGE, _CANONICAL_BLOCK)


def _translate(name: str, stem: dict[str, str], stages: dict[str, str], blocks: dict[str, str]) -> str:
    module, _, tensor = name.rpartition(".")
    if module in stem:
        return f"{stem[module]}.{tensor}"
    stage, _, rest = module.partition(".")
    number, _, part = rest.partition(".")
    if stage in stages and number.isdigit() and part in blocks:
        return f"{stages[stage]}.{number}.{blocks[part]}.{tensor}"
    raise ValueError(f"{name}: expected the name of a ResNet's tensor, without a classifier")
