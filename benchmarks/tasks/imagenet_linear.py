"""imagenet-linear: a linear classifier on the frozen backbone's pooled features."""

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.classification.protocol import LINEAR_PROTOCOLS, LinearProtocol
from benchmarks.context import Measurement, RunContext

if TYPE_CHECKING:
    from transfer.backbone import Backbone

SUMMARY = "linear classifier on frozen features of an image folder, train/CLASS and val/CLASS: top-1, top-5"
PROTOCOLS = LINEAR_PROTOCOLS
ENGINES = ("torch",)


def run(backbone: "Backbone", data: Path, protocol: LinearProtocol, context: RunContext) -> Measurement:
    """Train and evaluate the probe; see benchmarks/classification/linear.py."""
    from benchmarks.classification.linear import run_linear

    return run_linear(backbone, data, protocol, context)
