"""What the R-CNN is taught about an image, and what it answers."""

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Targets:
    """The objects of one image, in pixels of the network's input.

    `boxes` (N, 4) float32; `labels` (N,) int64; `masks`: one per object, a list of polygons (float64 arrays
    x, y, x, y, ...) or a bool tensor (H, W), or None for a detector without masks.
    """

    boxes: torch.Tensor
    labels: torch.Tensor
    masks: tuple[Any, ...] | None = None

    def to(self, device: torch.device) -> "Targets":
        """Boxes and labels on the device; masks stay where they are, their crops are small."""
        return Targets(self.boxes.to(device), self.labels.to(device), self.masks)


@dataclass(frozen=True)
class Found:
    """The objects found in one image, best score first, in pixels of the network's input.

    `boxes` (N, 4); `scores` (N,) in (0, 1]; `labels` (N,); `mask_probabilities` (N, S, S) within the box, or None.
    """

    boxes: torch.Tensor
    scores: torch.Tensor
    labels: torch.Tensor
    mask_probabilities: torch.Tensor | None = None

    def cpu(self) -> "Found":
        """The same in memory; of masks the small maps."""
        masks = None if self.mask_probabilities is None else self.mask_probabilities.cpu()
        return Found(self.boxes.cpu(), self.scores.cpu(), self.labels.cpu(), masks)
