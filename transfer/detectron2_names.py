"""Detectron2's names for a ResNet's tensors, both ways.

They are those of its weight files, without the `backbone.` or `roi_heads.` that a model puts before them
(`layer1.0.downsample.0.weight` is `res2.0.shortcut.weight`).
"""

from transfer.names import NameTable

DETECTRON2_NAMES = NameTable(
    stem={"conv1": "stem.conv1", "bn1": "stem.conv1.norm"},
    stages={
        "layer1": "res2.{block}.",
        "layer2": "res3.{block}.",
        "layer3": "res4.{block}.",
        "layer4": "res5.{block}.",
    },
    blocks={
        "conv1": "conv1",
        "bn1": "conv1.norm",
        "conv2": "conv2",
        "bn2": "conv2.norm",
        "conv3": "conv3",
        "bn3": "conv3.norm",
        "downsample.0": "shortcut",
        "downsample.1": "shortcut.norm",
    },
)
detectron2_name = DETECTRON2_NAMES.theirs
canonical_name = DETECTRON2_NAMES.ours
