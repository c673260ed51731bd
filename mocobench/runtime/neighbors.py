"""Weighted k-nearest-neighbour classification of features, exact (Wu et al., arXiv 1805.01978, section 3.4).

Q: queries, B: bank, C: channels. Of equal cosines the one that comes first in the bank is nearer, and of classes with
equal votes the first wins, so an accuracy depends on neither the blocks nor the sorting algorithm.
"""

import torch
from torch.nn import functional as F

from mocobench.runtime.distributed import gather_tensors, world_size
from mocobench.runtime.progress import progress

Labelled = tuple[torch.Tensor, torch.Tensor]  # features (N, C) and int64 labels (N,)
QUERY_BLOCK = 1024
BANK_BLOCK = 16384


def half_precision_bank(features: torch.Tensor) -> torch.Tensor:
    """Features (N, C) as a bank keeps them: of unit length, so that none overflows, in float16.

    Rounding moves a cosine by at most 2 ** -11 and, as it goes either way, by far less.
    """
    return F.normalize(features, dim=1).half()


def nearest(
    queries: torch.Tensor, bank: torch.Tensor, *, k: int, device: torch.device, bank_block: int = BANK_BLOCK
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k largest cosines of each query, largest first, and their positions in the bank: both (Q, k).

    `queries` (Q, C) and `bank` (B, C) need not be normalised, and may be in half precision: the cosines are those of
    the values as they are, computed in float32. The bank passes through the device once, block by block, so that it
    need not fit there, nor into memory where it is a memory map.
    """
    queries = F.normalize(queries.to(device, torch.float32), dim=1)
    best = [(part.new_empty(len(part), 0), _no_positions(part)) for part in queries.split(QUERY_BLOCK)]
    with progress(total=len(bank), label="kNN", unit="image") as bar:
        for start in range(0, len(bank), bank_block):
            block = F.normalize(bank[start : start + bank_block].to(device, torch.float32), dim=1)
            for index, part in enumerate(queries.split(QUERY_BLOCK)):
                cosines, positions = _first_largest(part @ block.T, min(k, len(block)))  # Q x k
                # Those found before come before in the bank too: at most 2k candidates, in the order that ties need.
                candidates = torch.cat([best[index][0], cosines], dim=1)
                candidate_positions = torch.cat([best[index][1], positions + start], dim=1)
                kept_cosines, kept = _first_largest(candidates, min(k, candidates.shape[1]))
                best[index] = kept_cosines, candidate_positions.gather(1, kept)
            bar.update(len(block))
    return torch.cat([cosines for cosines, _ in best]), torch.cat([positions for _, positions in best])


def _no_positions(like: torch.Tensor) -> torch.Tensor:
    return torch.empty(len(like), 0, dtype=torch.int64, device=like.device)


def _first_largest(values: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """As `values.topk(k)` of each row of (Q, N), with equal values in the order of their positions."""
    # One more than needed says whether equal values stand on both sides of the boundary.
    found, positions = values.topk(min(k + 1, values.shape[1]), dim=1)
    split_ties = (found[:, k - 1] == found[:, k]).nonzero().flatten() if found.shape[1] > k else found.new_empty(0)
    positions, order = positions[:, :k].sort(dim=1)
    largest, order = found[:, :k].gather(1, order).sort(dim=1, descending=True, stable=True)
    positions = positions.gather(1, order)
    if len(split_ties):
        largest_of_ties, positions_of_ties = values[split_ties].sort(dim=1, descending=True, stable=True)
        largest[split_ties], positions[split_ties] = largest_of_ties[:, :k], positions_of_ties[:, :k]
    return largest, positions


def vote(cosines: torch.Tensor, labels: torch.Tensor, *, num_classes: int, temperature: float) -> torch.Tensor:
    """The class (Q,) with the largest sum of exp(cosine / temperature) over the neighbours' labels; both (Q, k)."""
    # Of each query all weights are divided by the largest, which at a small temperature overflows.
    weights = ((cosines - cosines.amax(dim=1, keepdim=True)) / temperature).exp()
    scores = weights.new_zeros(len(cosines), num_classes).scatter_add_(1, labels, weights)
    return scores.argmax(dim=1)


def _of_all_banks(cosines: torch.Tensor, labels: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k largest cosines (Q, k) in the banks of all ranks, and their labels, from each rank's own (Q, at most k)."""
    missing = k - cosines.shape[1]
    own = F.pad(cosines, (0, missing), value=-torch.inf), F.pad(labels, (0, missing))
    # Side by side in the order of the ranks, which is that of the banks: Q x (ranks * k).
    found, voters = (torch.cat(gather_tensors(tensor).chunk(world_size()), dim=1) for tensor in own)
    largest, places = _first_largest(found, k)
    return largest, voters.gather(1, places)


def knn_predictions(
    bank: Labelled,
    queries: torch.Tensor,
    *,
    neighbors: tuple[int, ...],
    num_classes: int,
    temperature: float,
    device: torch.device,
    bank_is_shared_out: bool = False,
) -> dict[int, torch.Tensor]:
    """The class (Q,) of each query (Q, C) for each k, on the CPU. The bank is features (B, C) with labels (B,).

    With `bank_is_shared_out` it is this rank's part of the bank, which may be empty; the parts follow each other in the
    order of the ranks, all of which have the same queries. No k exceeds the size of the whole bank.
    """
    assert bank_is_shared_out or max(neighbors) <= len(bank[0]), (neighbors, len(bank[0]))
    predicted: dict[int, list[torch.Tensor]] = {k: [] for k in neighbors}
    cosines, positions = nearest(queries, bank[0], k=max(neighbors), device=device)
    bank_labels = bank[1].to(device)
    for part_cosines, part_positions in zip(cosines.split(QUERY_BLOCK), positions.split(QUERY_BLOCK), strict=True):
        voters = bank_labels[part_positions]
        if bank_is_shared_out:
            part_cosines, voters = _of_all_banks(part_cosines, voters, max(neighbors))
        for k, classes in predicted.items():
            votes = vote(part_cosines[:, :k], voters[:, :k], num_classes=num_classes, temperature=temperature)
            classes.append(votes.cpu())
    return {k: torch.cat(classes) for k, classes in predicted.items()}


def knn_accuracies(
    bank: Labelled,
    queries: Labelled,
    *,
    neighbors: tuple[int, ...],
    num_classes: int,
    temperature: float,
    device: torch.device,
    bank_is_shared_out: bool = False,
) -> dict[int, float]:
    """Top-1 accuracy in percent for each k. Bank and queries are features (N, C) with labels (N,), on any device.

    For `bank_is_shared_out` see `knn_predictions`. No k exceeds the size of the bank.
    """
    predicted = knn_predictions(
        bank,
        queries[0],
        neighbors=neighbors,
        num_classes=num_classes,
        temperature=temperature,
        device=device,
        bank_is_shared_out=bank_is_shared_out,
    )
    labels = queries[1].cpu()
    return {k: 100 * int((classes == labels).sum()) / len(labels) for k, classes in predicted.items()}
