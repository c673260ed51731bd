"""Masks between their three shapes: annotations, the 14x14 crops that are trained on, and RLE in the whole image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch.nn import functional as F
from torchvision.ops import roi_align

MASK_THRESHOLD = 0.5
# A box thinner than this many pixels is scaled as if it were that thick, so that nothing is divided by 0.
THINNEST_BOX = 0.1


def crop_targets(masks: Sequence[Any], boxes: torch.Tensor, *, size: int) -> torch.Tensor:
    """Each object's mask within its box, bool (N, size, size) on the CPU.

    Args:
        masks: N objects, each a list of polygons or a bool tensor (H, W), see `Targets`.
        boxes: (N, 4), the regions to be trained on.
    """
    crops = [_crop(mask, box, size) for mask, box in zip(masks, boxes.cpu(), strict=True)]
    return torch.stack(crops) if crops else torch.zeros((0, size, size), dtype=torch.bool)


def _crop(mask: Any, box: torch.Tensor, size: int) -> torch.Tensor:
    if isinstance(mask, torch.Tensor):
        return _crop_bitmask(mask, box, size)
    return _crop_polygons(mask, box.numpy(), size)


def _crop_bitmask(mask: torch.Tensor, box: torch.Tensor, size: int) -> torch.Tensor:
    """RoIAlign of the bitmask, thresholded."""
    pooled = roi_align(mask[None, None].float(), [box[None]], size, sampling_ratio=0, aligned=True)
    return pooled[0, 0] >= MASK_THRESHOLD


def _crop_polygons(polygons: list[np.ndarray], box: np.ndarray, size: int) -> torch.Tensor:
    """The polygons moved into the box, stretched to `size`, and rasterised by pycocotools."""
    width, height = box[2:] - box[:2]
    scale = np.array((size / max(width, THINNEST_BOX), size / max(height, THINNEST_BOX)))
    moved = [((polygon.reshape(-1, 2) - box[:2]) * scale).reshape(-1) for polygon in polygons]
    rle = coco_mask.merge(coco_mask.frPyObjects(moved, size, size))
    return torch.from_numpy(coco_mask.decode(rle).astype(bool))


def paste(probabilities: torch.Tensor, box: torch.Tensor, *, height: int, width: int) -> torch.Tensor:
    """One mask's probabilities (S, S), spread over its box (4,), as bool (height, width).

    Each pixel is sampled bilinearly at its centre, with 0 outside the map, and compared with 0.5.
    """
    # Only the box and a pixel around it can be inside; the rest of the image is not looked at.
    left, top = (int(edge) for edge in (box[:2].floor() - 1).clamp(min=0))
    right, bottom = min(int(box[2].ceil()) + 1, width), min(int(box[3].ceil()) + 1, height)
    x = torch.arange(left, right, device=box.device, dtype=torch.float32) + 0.5
    y = torch.arange(top, bottom, device=box.device, dtype=torch.float32) + 0.5
    x = (x - box[0]) / (box[2] - box[0]) * 2 - 1
    y = (y - box[1]) / (box[3] - box[1]) * 2 - 1
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    grid = torch.stack((columns, rows), dim=-1)[None]
    sampled = F.grid_sample(probabilities[None, None], grid, align_corners=False)[0, 0]
    pasted = torch.zeros((height, width), dtype=torch.bool, device=box.device)
    pasted[top:bottom, left:right] = sampled >= MASK_THRESHOLD
    return pasted


def to_rle(mask: torch.Tensor) -> dict[str, Any]:
    """A bool mask (H, W) as a COCO RLE with its counts as bytes."""
    return coco_mask.encode(np.asfortranarray(mask.cpu().numpy().astype(np.uint8)))
