"""Checkpoints of networks built with Lightly, whose backbone is an nn.Sequential without names.

state_dict: backbone.0.weight (the stem), ..., projection_head.*, and for some methods backbone_momentum.* and others
Either torchvision's ResNet cut before its classifier, or Lightly's own `ResNetGenerator`, which has a 3x3 stem. That
one calls its stem's ReLU as a function, so the cut loses it, and the network was trained without.
"""

from dataclasses import replace
from typing import Any

from transfer.features import INDEXED
from transfer.layout import Layout
from transfer.names import INDEXED_NAMES, SHORTCUT_NAMES, NameTable

SUMMARY = "checkpoint of a network built with Lightly"
TESTED_WITH = "lightly"
# conv1, bn1, layer1, ..., layer4 and the pooling
GENERATOR_NAMES = NameTable(
    stem={"conv1": "0", "bn1": "1"},
    stages={f"layer{n}": f"{n + 1}.{{block}}." for n in (1, 2, 3, 4)},
    blocks=SHORTCUT_NAMES.blocks,
)
GENERATOR = replace(
    INDEXED,
    stages=("2.{block}.", "3.{block}.", "4.{block}.", "5.{block}."),
    shortcut="shortcut.0",
    shortcut_norm="shortcut.1",
)
COMMON: dict[str, Any] = {
    "format": "lightly",
    "method": None,
    "sections": ("state_dict", ""),
    "encoders": {"backbone": "backbone.", "momentum": "backbone_momentum."},
    "heads": {},
    "dropped": {
        "projection_head": "projection head",
        "prediction_head.": "prediction head",
        "prototypes.": "prototypes",
        "classification_head.": "classifier",
        "criterion.": "loss",
    },
    "first_epoch": 0,
}
LAYOUTS = (
    Layout(**COMMON, lacks=("backbone.2.",), names=INDEXED_NAMES, spelling=INDEXED),
    Layout(**COMMON, names=GENERATOR_NAMES, spelling=GENERATOR, small_stem="-cifar-linear"),
)
