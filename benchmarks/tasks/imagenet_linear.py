"""imagenet-linear: a linear classifier on the frozen backbone's pooled features."""

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.classification.protocol import LINEAR_PROTOCOLS, LinearProtocol, LogisticProtocol
from benchmarks.context import Measurement, RunContext
from benchmarks.result import DataIdentity

if TYPE_CHECKING:
    from transfer.backbone import Backbone

SUMMARY = "linear classifier on frozen features of an image folder, train/CLASS and val/CLASS: top-1, top-5"
PROTOCOLS = LINEAR_PROTOCOLS
ENGINES = ("torch",)


def run(
    backbone: "Backbone", data: Path, protocol: LinearProtocol | LogisticProtocol, context: RunContext
) -> Measurement:
    """Train and evaluate the probe; see benchmarks/classification/linear.py and logistic_probe.py."""
    if isinstance(protocol, LogisticProtocol):
        from benchmarks.classification.logistic_probe import run_logistic

        return run_logistic(backbone, data, protocol, context)
    from benchmarks.classification.linear import run_linear

    return run_linear(backbone, data, protocol, context)


def identify(data: Path, protocol: LinearProtocol | LogisticProtocol, context: RunContext) -> DataIdentity:
    """The images of the folder that can be read."""
    from benchmarks.classification.readable import readable_splits

    return readable_splits(data, context).identity
