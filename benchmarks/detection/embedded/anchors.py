"""Anchors: the boxes that the region proposal network starts from, the same in every cell of a feature map."""

import math

import torch


def cell_anchors(*, sizes: tuple[float, ...], ratios: tuple[float, ...]) -> torch.Tensor:
    """Anchors (len(sizes) * len(ratios), 4) of one cell, centred on 0, ratios running fastest.

    Args:
        sizes: square roots of the areas, in pixels.
        ratios: height over width.
    """
    anchors = []
    for size in sizes:
        for ratio in ratios:
            width = math.sqrt(size**2 / ratio)
            height = ratio * width
            anchors.append((-width / 2, -height / 2, width / 2, height / 2))
    return torch.tensor(anchors)


def grid_anchors(cell: torch.Tensor, *, height: int, width: int, stride: int) -> torch.Tensor:
    """Anchors (height * width * A, 4) of a feature map: `cell` (A, 4) at each cell's top left corner, row by row."""
    x = torch.arange(0, width * stride, stride, dtype=torch.float32, device=cell.device)
    y = torch.arange(0, height * stride, stride, dtype=torch.float32, device=cell.device)
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    shifts = torch.stack((columns, rows, columns, rows), dim=-1).view(-1, 1, 4)
    return (shifts + cell).view(-1, 4)
