"""res5 on regions (C4): its first convolutions on the whole map, where that is less work than on every region."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.detection.embedded.layers import ConvNorm
from benchmarks.detection.embedded.poolers import pool_regions
from benchmarks.detection.embedded.resnet import Bottleneck

POOLED_SIZE = 14
REGION_SIZE = POOLED_SIZE // 2  # after res5's stride

Pool = Callable[..., torch.Tensor]


def run_on_regions(
    res5: nn.Sequential, features: torch.Tensor, regions: list[torch.Tensor], *, stride: int
) -> torch.Tensor:
    """Features (N, 1024, H, W) and regions (P_i, 4) per image to res5's features (P, 2048, 7, 7).

    RoIAlign is linear and treats all channels alike, so it commutes with the two 1x1 convolutions that read its
    output. Done first, those run once on the map instead of on every region, a quarter of res5's arithmetic less; the
    result differs by rounding only. Taken on the CPU, where the arithmetic is what takes the time, for a map with
    fewer cells than the regions have.
    """
    pool = partial(pool_regions, regions=regions, strides=(stride,), size=POOLED_SIZE)
    map_cells = features[:, 0].numel()
    region_cells = sum(len(each) for each in regions) * REGION_SIZE**2
    if features.is_cuda or map_cells > region_cells:
        return res5(pool([features]).contiguous(memory_format=torch.channels_last))
    first, *others = res5.children()
    assert isinstance(first, Bottleneck)
    x = _first_block(first, features, pool)
    for module in others:
        x = module(x)
    return x


def _first_block(block: Bottleneck, features: torch.Tensor, pool: Pool) -> torch.Tensor:
    """What `block(pool(features))` gives, pooling what its 1x1 convolutions make of the map at stride 1."""
    assert block.shortcut is not None
    inside, shortcut = (_pooled_after(conv, features, pool) for conv in (block.conv1, block.shortcut))
    out = F.relu_(block.conv2(F.relu_(inside)))
    return F.relu_(block.conv3(out) + shortcut)


def _pooled_after(conv: ConvNorm, features: torch.Tensor, pool: Pool) -> torch.Tensor:
    """What `conv(pool(features))` gives: its stride is that between the bins that are pooled."""
    assert conv.norm is not None
    pooled: torch.Tensor = conv.norm(pool([F.conv2d(features, conv.weight)], every=conv.stride[0]))
    return pooled
