"""Weighted k-nearest-neighbour classification of frozen features, exact (Wu et al., arXiv 1805.01978, section 3.4)."""

from pathlib import Path

import torch
from torch.nn import functional as F

from benchmarks.classification.data import Batch, CenterView, read_splits
from benchmarks.classification.features import freeze, mean_norm
from benchmarks.classification.protocol import KnnProtocol
from benchmarks.context import Measurement, RunContext
from benchmarks.protocol import show
from benchmarks.result import Metric
from mocobench.runtime.errors import UserError
from mocobench.runtime.progress import progress
from transfer.backbone import Backbone

QUERY_BLOCK = 1024
BANK_BLOCK = 65536


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


def nearest(
    queries: torch.Tensor, bank: torch.Tensor, *, k: int, device: torch.device, bank_block: int = BANK_BLOCK
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k largest cosines of each query, largest first, and their positions in the bank: both (Q, k).

    Q: queries, B: bank, C: channels. `queries` (Q, C) and `bank` (B, C) need not be normalised. The bank passes
    through the device block by block, so that it need not fit there.
    """
    queries = F.normalize(queries.to(device), dim=1)
    best_cosines = queries.new_empty(len(queries), 0)
    best_positions = torch.empty(len(queries), 0, dtype=torch.int64, device=device)
    for start in range(0, len(bank), bank_block):
        block = F.normalize(bank[start : start + bank_block].to(device), dim=1)
        cosines, positions = (queries @ block.T).topk(min(k, len(block)), dim=1)  # Q x k
        # Merge with the best so far: at most 2k candidates.
        candidates = torch.cat([best_cosines, cosines], dim=1)
        candidate_positions = torch.cat([best_positions, positions + start], dim=1)
        best_cosines, kept = candidates.topk(min(k, candidates.shape[1]), dim=1)
        best_positions = candidate_positions.gather(1, kept)
    return best_cosines, best_positions


def vote(cosines: torch.Tensor, labels: torch.Tensor, *, num_classes: int, temperature: float) -> torch.Tensor:
    """The class (Q,) with the largest sum of exp(cosine / temperature) over the neighbours' labels; both (Q, k)."""
    weights = (cosines / temperature).exp()
    scores = weights.new_zeros(len(cosines), num_classes).scatter_add_(1, labels, weights)
    return scores.argmax(dim=1)


def knn_accuracies(
    bank: Batch,
    queries: Batch,
    *,
    neighbors: tuple[int, ...],
    num_classes: int,
    temperature: float,
    device: torch.device,
) -> dict[int, float]:
    """Top-1 accuracy in percent for each k. Bank and queries are features (N, C) with labels (N,).

    Raises:
        UserError: a k exceeds the size of the bank.
    """
    bank_features, bank_labels = bank
    require_enough_neighbors(neighbors, len(bank_features))
    correct = dict.fromkeys(neighbors, 0)
    with progress(total=len(queries[0]), label="kNN", unit="image") as bar:
        for features, labels in zip(queries[0].split(QUERY_BLOCK), queries[1].split(QUERY_BLOCK), strict=True):
            cosines, positions = nearest(features, bank_features, k=max(neighbors), device=device)
            voters = bank_labels.to(device)[positions]
            for k in neighbors:
                predicted = vote(cosines[:, :k], voters[:, :k], num_classes=num_classes, temperature=temperature)
                correct[k] += int((predicted == labels.to(device)).sum())
            bar.update(len(features))
    return {k: 100 * count / len(queries[0]) for k, count in correct.items()}
