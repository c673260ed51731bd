"""The MSRA ResNets under Caffe2's blob names, as Detectron and Detectron2 offer them: `R-50.pkl`.

They take BGR pixels from 0 to 255, have the stride in the 1x1 convolutions, and an affine map in the place of BN.
"""

from dataclasses import replace
from pathlib import Path

import torch

from transfer.backbone import InputSpec
from transfer.container import Content
from transfer.features import BN_EPSILON, Spelling
from transfer.found import Found
from transfer.layout import Layout
from transfer.names import NameTable

SUMMARY = "MSRA's supervised ResNets under Caffe2's names, from Detectron's or Detectron2's model zoo"
CAFFE2_NAMES = NameTable(
    stem={"conv1": "conv1", "bn1": "res_conv1_bn"},
    stages={f"layer{n}": f"res{n + 1}_{{block}}_" for n in (1, 2, 3, 4)},
    blocks={
        "conv1": "branch2a",
        "bn1": "branch2a_bn",
        "conv2": "branch2b",
        "bn2": "branch2b_bn",
        "conv3": "branch2c",
        "bn3": "branch2c_bn",
        "downsample.0": "branch1",
        "downsample.1": "branch1_bn",
    },
    convs={"weight": "_w"},
    norms={"weight": "_s", "bias": "_b"},
)
CAFFE2 = Spelling(
    stem="conv1",
    stem_norm="res_conv1_bn",
    stages=("res2_{block}_", "res3_{block}_", "res4_{block}_", "res5_{block}_"),
    conv="branch2{letter}",
    norm="branch2{letter}_bn",
    shortcut="branch1",
    shortcut_norm="branch1_bn",
    weight="_w",
    scale="_s",
    shift="_b",
    mean=None,
    variance=None,
)
LAYOUTS = (
    Layout(
        format="msra",
        method="supervised",
        sections=("", "blobs", "model"),
        encoders={"backbone": ""},
        heads={"fc1000_": "classifier", "pred_": "classifier", "conv1_b": "bias of the stem, which Detectron2 ignores"},
        dropped={"__author__": "label", "matching_heuristics": "label", "weight_order": "label"},
        containers=("pickle",),
        names=CAFFE2_NAMES,
        spelling=CAFFE2,
        # Detectron2's PIXEL_MEAN and PIXEL_STD for these weights.
        input=InputSpec((103.530, 116.280, 123.675), (1.0, 1.0, 1.0), channel_order="BGR", max_value=255.0),
        stride_in_1x1=True,
    ),
)


def finish(found: Found, content: Content, path: Path) -> Found:
    """The statistics that make BN the affine map, and no momenta of the solver."""
    momenta = [name for name in found.canonical if name.endswith("_momentum")]
    for name in momenta:
        del found.canonical[name], found.in_network[name]
    dropped = found.dropped | dict.fromkeys(momenta, "optimizer state")
    implied: dict[str, torch.Tensor] = {}
    for own, name in found.canonical.items():
        module, _, end = name.rpartition(".")
        if end == "bias" and isinstance(found.own[own], torch.Tensor):
            channels = torch.ones(found.own[own].shape[:1])
            implied |= {f"{module}.running_mean": 0 * channels, f"{module}.running_var": (1 - BN_EPSILON) * channels}
    return replace(found, dropped=dropped, implied=implied)
