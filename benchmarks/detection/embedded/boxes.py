"""Boxes as tensors: areas, overlaps, clipping, and the deltas that a network predicts instead of coordinates.

A box is (x1, y1, x2, y2) in pixels, float32; a delta is (dx, dy, dw, dh). Law of the deltas, for boxes with an area:
`decode(encode(boxes, targets, weights), boxes, weights) == targets`.
"""

import math

import torch

Weights = tuple[float, float, float, float]

# The largest dw and dh that decoding follows: a box grows to 1000 / 16 of its size at most.
LARGEST_LOG_SCALE = math.log(1000.0 / 16)


def areas(boxes: torch.Tensor) -> torch.Tensor:
    """Areas (N,) of boxes (N, 4)."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def pairwise_iou(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Intersection over union (M, N) of boxes (M, 4) and (N, 4); 0 where they do not meet."""
    top_left = torch.max(first[:, None, :2], second[None, :, :2])
    bottom_right = torch.min(first[:, None, 2:], second[None, :, 2:])
    intersection = (bottom_right - top_left).clamp_(min=0).prod(dim=2)
    union = areas(first)[:, None] + areas(second)[None, :] - intersection
    return torch.where(intersection > 0, intersection / union, intersection.new_zeros(()))


def clip(boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Boxes (..., 4) cut off at the borders of an image of `size` (height, width)."""
    height, width = size
    x = boxes[..., 0::2].clamp(0, width)
    y = boxes[..., 1::2].clamp(0, height)
    return torch.stack((x[..., 0], y[..., 0], x[..., 1], y[..., 1]), dim=-1)


def have_area(boxes: torch.Tensor, *, above: float = 0.0) -> torch.Tensor:
    """Which of the boxes (N, 4) are wider and higher than `above` pixels, as bool (N,)."""
    return (boxes[:, 2] - boxes[:, 0] > above) & (boxes[:, 3] - boxes[:, 1] > above)


def encode(boxes: torch.Tensor, targets: torch.Tensor, weights: Weights) -> torch.Tensor:
    """Deltas (N, 4) that lead from `boxes` (N, 4), each with an area, to `targets` (N, 4)."""
    sizes = boxes[:, 2:] - boxes[:, :2]
    target_sizes = targets[:, 2:] - targets[:, :2]
    centres = boxes[:, :2] + 0.5 * sizes
    target_centres = targets[:, :2] + 0.5 * target_sizes
    shift_weights, scale_weights = boxes.new_tensor(weights[:2]), boxes.new_tensor(weights[2:])
    shifts = shift_weights * (target_centres - centres) / sizes
    scales = scale_weights * torch.log(target_sizes / sizes)
    return torch.cat((shifts, scales), dim=1)


def decode(deltas: torch.Tensor, boxes: torch.Tensor, weights: Weights) -> torch.Tensor:
    """Boxes (..., 4) that `deltas` (..., 4) make of `boxes`, whose shape must broadcast to that of the deltas."""
    deltas = deltas.float()
    sizes = boxes[..., 2:] - boxes[..., :2]
    centres = boxes[..., :2] + 0.5 * sizes
    shifts = deltas[..., :2] / deltas.new_tensor(weights[:2])
    scales = (deltas[..., 2:] / deltas.new_tensor(weights[2:])).clamp(max=LARGEST_LOG_SCALE)
    new_centres = shifts * sizes + centres
    half_sizes = 0.5 * torch.exp(scales) * sizes
    return torch.cat((new_centres - half_sizes, new_centres + half_sizes), dim=-1)
