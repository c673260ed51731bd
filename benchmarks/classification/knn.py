"""The kNN benchmark: weighted k-nearest-neighbour classification of frozen features."""

from pathlib import Path

from benchmarks.classification.data import CenterView, read_splits
from benchmarks.classification.features import freeze, mean_norm
from benchmarks.classification.protocol import KnnProtocol
from benchmarks.context import Measurement, RunContext
from benchmarks.protocol import show
from benchmarks.result import Metric
from mocobench.runtime.errors import UserError
from mocobench.runtime.neighbors import knn_accuracies
from transfer.backbone import Backbone


def run_knn(backbone: Backbone, data: Path, protocol: KnnProtocol, context: RunContext) -> Measurement:
    """Classify `data/val` by the features of `data/train`: top-1 accuracy for each number of neighbours.

    Raises:
        UserError: bad data, or more neighbours than training images.
    """
    splits = read_splits(data)
    require_enough_neighbors(protocol.neighbors, len(splits.train.paths))
    frozen = freeze(backbone, device=context.device, precision=context.precision)
    view = CenterView(protocol.test_resize, protocol.image_size)
    val = frozen.extract_folder(splits.val, view, context, label="val features")
    train = frozen.extract_folder(splits.train, view, context, label="train features")
    accuracies = knn_accuracies(
        train,
        val,
        neighbors=protocol.neighbors,
        num_classes=len(splits.train.classes),
        temperature=protocol.temperature,
        device=context.device,
    )
    metrics = {f"top1_k{k}": accuracy for k, accuracy in accuracies.items()}
    metric_info = {f"top1_k{k}": Metric(f"top-1, k={k}") for k in accuracies}
    return Measurement(metrics, metric_info, splits.identity, {"feature_norm": mean_norm(val[0])})


def require_enough_neighbors(neighbors: tuple[int, ...], bank_size: int) -> None:
    """Refuse a k that the bank cannot fill.

    Raises:
        UserError: the largest k exceeds the number of training images.
    """
    if max(neighbors) > bank_size:
        raise UserError(
            f"--neighbors {show(neighbors)}: expected at most the {bank_size} training images, found {max(neighbors)}; "
            "use fewer neighbours or more images"
        )
