"""The kNN benchmark: weighted k-nearest-neighbour classification of frozen features."""

from pathlib import Path

from benchmarks.classification.confusion import class_details
from benchmarks.classification.data import CenterView, read_splits
from benchmarks.classification.extraction import extract_splits
from benchmarks.classification.features import freeze, mean_norm
from benchmarks.classification.protocol import KnnProtocol
from benchmarks.context import Measurement, RunContext
from benchmarks.protocol import show
from benchmarks.result import Metric
from benchmarks.run_folder import claim_folder
from mocobench.runtime.distributed import gather_parts, rank, world_size
from mocobench.runtime.errors import UserError
from mocobench.runtime.memory import out_of_memory_means
from mocobench.runtime.neighbors import knn_predictions
from transfer.backbone import Backbone

CLASSES_AT = 20  # neighbours


def run_knn(backbone: Backbone, data: Path, protocol: KnnProtocol, context: RunContext) -> Measurement:
    """Classify `data/val` by the features of `data/train`: top-1 accuracy for each number of neighbours.

    The bank is in half precision (see `half_precision_bank`), whether features are kept or not. The ranks share the
    features and the queries. Classes are described at the k nearest to 20, so that none is chosen.

    Raises:
        UserError: bad data, a folder of another run, more neighbours than training images, or too little memory.
    """
    splits = read_splits(data)
    claim_folder(backbone, protocol, context, splits.identity)
    require_enough_neighbors(protocol.neighbors, len(splits.train))
    frozen = freeze(backbone, device=context.device, precision=context.precision)
    view = CenterView(protocol.test_resize, protocol.image_size)
    splits, train, (features, labels) = extract_splits(frozen, splits, view, context, train_form="unit float16")
    require_enough_neighbors(protocol.neighbors, len(splits.train))
    queries = features.tensor_split(world_size())[rank()]
    remedy = "use --device cpu, or more processes (torchrun), which share them"
    with out_of_memory_means(f"the neighbours of {len(queries)} images", remedy=remedy):
        own = knn_predictions(
            train,
            queries,
            neighbors=protocol.neighbors,
            num_classes=len(splits.train.classes),
            temperature=protocol.temperature,
            device=context.device,
        )
    predicted = {k: gather_parts(classes, len(labels)) for k, classes in own.items()}
    frozen.require_unmoved()
    metrics = {f"top1_k{k}": 100 * int((classes == labels).sum()) / len(labels) for k, classes in predicted.items()}
    shown = min(predicted, key=lambda k: abs(k - CLASSES_AT))
    details = {
        "feature_norm": mean_norm(features),
        "classes_at_k": shown,
        **class_details(predicted[shown], labels, splits.train.classes, context),
    }
    metric_info = {f"top1_k{k}": Metric(f"top-1, k={k}") for k in predicted}
    return Measurement(metrics, metric_info, splits.identity, details)


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
