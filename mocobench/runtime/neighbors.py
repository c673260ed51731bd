"""Weighted k-nearest-neighbour classification of features, exact (Wu et al., arXiv 1805.01978, section 3.4)."""

import torch
from torch.nn import functional as F

from mocobench.runtime.progress import progress

Labelled = tuple[torch.Tensor, torch.Tensor]  # features (N, C) and int64 labels (N,)
QUERY_BLOCK = 1024
BANK_BLOCK = 65536


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
    bank: Labelled,
    queries: Labelled,
    *,
    neighbors: tuple[int, ...],
    num_classes: int,
    temperature: float,
    device: torch.device,
) -> dict[int, float]:
    """Top-1 accuracy in percent for each k. Bank and queries are features (N, C) with labels (N,), on any device.

    No k exceeds the size of the bank.
    """
    bank_features, bank_labels = bank
    assert max(neighbors) <= len(bank_features), (neighbors, len(bank_features))
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
