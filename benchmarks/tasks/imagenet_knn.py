"""imagenet-knn: weighted k-nearest-neighbour classification with the frozen backbone's pooled features."""

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.classification.protocol import KNN_PROTOCOLS, KnnProtocol
from benchmarks.context import Measurement, RunContext
from benchmarks.result import DataIdentity

if TYPE_CHECKING:
    from transfer.backbone import Backbone

SUMMARY = "weighted kNN vote on frozen features of an image folder, train/CLASS and val/CLASS: top-1 for each k"
PROTOCOLS = KNN_PROTOCOLS
ENGINES = ("torch",)


def run(backbone: "Backbone", data: Path, protocol: KnnProtocol, context: RunContext) -> Measurement:
    """Classify the validation images; see benchmarks/classification/knn.py."""
    from benchmarks.classification.knn import run_knn

    return run_knn(backbone, data, protocol, context)


def identify(data: Path, protocol: KnnProtocol, context: RunContext) -> DataIdentity:
    """The images of the folder that can be read."""
    from benchmarks.classification.readable import readable_splits

    return readable_splits(data, context).identity
