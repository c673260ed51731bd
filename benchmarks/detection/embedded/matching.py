"""Which object a candidate box belongs to, and the random draw of the candidates that are trained on."""

import torch

IGNORED = -1


def match(iou: torch.Tensor, *, background_below: float, foreground_from: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Match each candidate to the object it overlaps most.

    Args:
        iou: (M, N), objects by candidates; M may be 0.
        background_below, foreground_from: candidates between the two are ignored.

    Returns:
        The object's index (N,) int64, and 1 (foreground), 0 (background) or -1 (ignored) (N,) int8.
    """
    num_objects, num_candidates = iou.shape
    if num_objects == 0:
        objects = torch.zeros(num_candidates, dtype=torch.int64, device=iou.device)
        return objects, torch.zeros(num_candidates, dtype=torch.int8, device=iou.device)
    best, objects = iou.max(dim=0)
    labels = torch.full_like(objects, IGNORED, dtype=torch.int8)
    labels[best < background_below] = 0
    labels[best >= foreground_from] = 1
    return objects, labels


def match_best_too(iou: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """`labels` (N,), with the candidates that overlap an object most made foreground, however little they do.

    Ties all count. Such a candidate still belongs to the object that it overlaps most itself (Faster R-CNN,
    section 3.1.2, as Detectron reads it).
    """
    if iou.shape[0] == 0:
        return labels
    best = (iou == iou.max(dim=1, keepdim=True).values).any(dim=0)
    return torch.where(best, torch.ones_like(labels), labels)


def sample(
    labels: torch.Tensor,
    *,
    count: int,
    foreground_fraction: float,
    background: int,
    generator: torch.Generator | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw at most `count` candidates, at most that fraction of them foreground, the rest background.

    Args:
        labels: (N,), -1 for ignored, `background` for background, anything else for foreground.
        generator: on the labels' device; None for torch's own.

    Returns:
        Indices of the foreground and of the background drawn, each in random order: two torch.randperm draws,
        foreground first, so that the same generator state gives the same sample as Detectron2's.
    """
    foreground = torch.nonzero((labels != IGNORED) & (labels != background)).squeeze(1)
    others = torch.nonzero(labels == background).squeeze(1)
    num_foreground = min(len(foreground), int(count * foreground_fraction))
    num_background = min(len(others), count - num_foreground)
    device = labels.device
    first = torch.randperm(len(foreground), generator=generator, device=device)[:num_foreground]
    second = torch.randperm(len(others), generator=generator, device=device)[:num_background]
    return foreground[first], others[second]
