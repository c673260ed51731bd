"""Pooling from one or several feature levels: features of a fixed size for each region, in the regions' order."""

import math

import torch

from benchmarks.detection.embedded.boxes import areas
from benchmarks.detection.embedded.roi_align import align

# A region of 224 x 224 pixels is read from the level of stride 2 ** 4 (FPN, equation 1).
CANONICAL_SIZE, CANONICAL_LEVEL = 224, 4


def assign_levels(regions: torch.Tensor, *, strides: tuple[int, ...]) -> torch.Tensor:
    """The level that each region (P, 4) is read from, as an index (P,) into `strides`, which double level by level.

    A region twice as wide and high goes one level up; those beyond the first or last level are read from it.
    """
    finest, coarsest = math.log2(strides[0]), math.log2(strides[-1])
    sizes = areas(regions).sqrt()
    # The 1e-8 keeps an empty region from log2(0), and decides what happens at a border: it is Detectron2's.
    levels = torch.floor(CANONICAL_LEVEL + torch.log2(sizes / CANONICAL_SIZE + 1e-8))
    return (levels.clamp(finest, coarsest) - finest).to(torch.int64)


def pool_regions(
    features: list[torch.Tensor],
    regions: list[torch.Tensor],
    *,
    strides: tuple[int, ...],
    size: int,
    every: int = 1,
) -> torch.Tensor:
    """Features (P, C, B, B) of the regions of the whole batch: every `every`-th of their size x size bins a side.

    Args:
        features: one (N, C, H, W) for each stride, finest first.
        regions: (P_i, 4) for each of the N images, in pixels of the network's input.
    """
    numbers = torch.cat([each.new_full((len(each), 1), image) for image, each in enumerate(regions)])
    numbered = torch.cat((numbers, torch.cat(regions)), dim=1)
    if len(strides) == 1:
        return align(features[0], numbered, stride=strides[0], size=size, every=every)
    levels = assign_levels(numbered[:, 1:], strides=strides)
    chosen = [torch.nonzero(levels == level).squeeze(1) for level in range(len(strides))]
    pooled = [
        align(map_, numbered[index], stride=stride, size=size, every=every)
        for map_, index, stride in zip(features, chosen, strides, strict=True)
    ]
    return torch.cat(pooled)[torch.cat(chosen).argsort()]
