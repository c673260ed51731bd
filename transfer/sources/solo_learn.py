"""Checkpoints of solo-learn: pytorch-lightning_version, epoch, hyper_parameters, state_dict: backbone.*, ...

Before its version 1.0.5 the backbone was called `encoder`. For CIFAR it has a 3x3 stem with a padding of 2.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from transfer.backbone import InputSpec
from transfer.container import Content
from transfer.found import Found
from transfer.layout import LIGHTNING_KEY, Layout

SUMMARY = "checkpoint of solo-learn"
TESTED_WITH = "solo-learn"
# solo/utils/pretrain_dataloader.py, for CIFAR-10 and CIFAR-100
CIFAR_RGB = InputSpec((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261))
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
    """The method and, for CIFAR, the input convention that the hyper-parameters name."""
    settings = content.section("hyper_parameters")
    data = settings.get("data")
    dataset = data.get("dataset") if isinstance(data, dict) else settings.get("dataset")
    method = settings.get("method")
    if isinstance(method, str):
        found = replace(found, provenance=replace(found.provenance, method=method))
    if dataset in ("cifar10", "cifar100"):
        return replace(found, input=CIFAR_RGB)
    stem = next((found.own[own] for own, name in found.canonical.items() if name == "conv1.weight"), None)
    if isinstance(stem, torch.Tensor) and stem.shape[2:] == (3, 3):
        return replace(found, warnings=("the data set is not known: ImageNet's mean and std are assumed",))
    return found
