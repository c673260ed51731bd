"""SupContrast's checkpoints (SupCon and SimCLR on CIFAR): opt, optimizer, epoch, model: encoder.*, head.*

Its ResNets have a 3x3 stem and a `shortcut` in the place of `downsample`.
"""

from dataclasses import replace
from pathlib import Path

from transfer.backbone import InputSpec
from transfer.container import Content
from transfer.features import TORCHVISION
from transfer.found import Found
from transfer.layout import Layout
from transfer.names import SHORTCUT_NAMES

SUMMARY = "checkpoint of SupContrast's code (SupCon, SimCLR)"
# Data set -> input convention; main_supcon.py
INPUTS = {
    "cifar10": InputSpec((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": InputSpec((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}
LAYOUTS = (
    Layout(
        format="supcontrast",
        method="SupContrast",
        sections=("model",),
        encoders={"encoder": "encoder."},
        dropped={"head.": "projection head"},
        marks=("encoder.layer2.0.shortcut.",),
        names=SHORTCUT_NAMES,
        spelling=replace(TORCHVISION, shortcut="shortcut.0", shortcut_norm="shortcut.1"),
        input=INPUTS["cifar10"],
    ),
)


def finish(found: Found, content: Content, path: Path) -> Found:
    """The input convention of the data set and the method that the options name."""
    options = content.section("opt")
    method, dataset = options.get("method"), options.get("dataset")
    if isinstance(method, str):
        found = replace(found, provenance=replace(found.provenance, method=method))
    if dataset in INPUTS:
        return replace(found, input=INPUTS[dataset])
    return replace(found, warnings=(f"the data set is not known ({dataset!r}): CIFAR-10's mean and std are assumed",))
