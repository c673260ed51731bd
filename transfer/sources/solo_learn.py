"""Checkpoints of solo-learn: pytorch-lightning_version, epoch, state_dict: backbone.*, ...

Before its version 1.0.3 the backbone was called `encoder`. For CIFAR, and for nothing else, it has a 3x3 stem with a
padding of 2. solo-learn keeps its settings in another file; a caller who saved them has them as `hyper_parameters`.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from transfer.backbone import IMAGENET_RGB, InputSpec
from transfer.container import Content
from transfer.found import Found
from transfer.layout import LIGHTNING_KEY, Layout

SUMMARY = "checkpoint of solo-learn"
TESTED_WITH = "solo-learn"
# Data set -> input convention; pretrain_dataloader.py in solo/utils of version 1.0.3, in solo/data of 1.0.6
INPUTS = {
    "cifar10": InputSpec((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": InputSpec((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "stl10": InputSpec((0.4914, 0.4823, 0.4466), (0.247, 0.243, 0.261)),
    "imagenet": IMAGENET_RGB,
    "imagenet100": IMAGENET_RGB,
}
# The same file of version 1.0.2 has one for both CIFARs.
OLD_CIFAR_RGB = InputSpec((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261))
OLD_INPUTS = INPUTS | {"cifar10": OLD_CIFAR_RGB, "cifar100": OLD_CIFAR_RGB}
COMMON: dict[str, Any] = {
    "format": "solo_learn",
    "method": None,
    "sections": ("state_dict",),
    "dropped": {
        "classifier.": "classifier",
        "projector.": "projection head",
        "predictor.": "prediction head",
        "head.": "projection head",
        "momentum_": "momentum network's heads",
        "prototypes": "prototypes",
        "queue": "queue of keys",
        "dino_loss_func.": "loss",
    },
    "beside": (LIGHTNING_KEY,),
    "small_stem": "-cifar-pad2",
    "first_epoch": 0,
}
LAYOUTS = (
    Layout(encoders={"backbone": "backbone.", "momentum": "momentum_backbone."}, **COMMON),
    Layout(encoders={"backbone": "encoder.", "momentum": "momentum_encoder."}, **COMMON),
)


def finish(found: Found, content: Content, path: Path) -> Found:
    """The method, and the input convention of the data set: the named one, or by the stem CIFAR-10 or ImageNet."""
    settings = content.section("hyper_parameters")
    data = settings.get("data")
    dataset = data.get("dataset") if isinstance(data, dict) else settings.get("dataset")
    method = settings.get("method")
    if isinstance(method, str):
        found = replace(found, provenance=replace(found.provenance, method=method))
    inputs = OLD_INPUTS if any("encoder." in name for name in found.canonical) else INPUTS
    if isinstance(dataset, str) and dataset in inputs:
        return replace(found, input=inputs[dataset])
    stem = next((found.own[own] for own, name in found.canonical.items() if name == "conv1.weight"), None)
    is_for_cifar = isinstance(stem, torch.Tensor) and stem.shape[2:] == (3, 3)
    assumed, whose = (inputs["cifar10"], "CIFAR-10") if is_for_cifar else (found.input, "ImageNet")
    return replace(found, input=assumed, warnings=(f"the data set is not known: {whose}'s mean and std are assumed",))
