"""RoIAlign (Mask R-CNN, section 3) as Detectron2 uses it: half-pixel shift, as many samples a bin as cells in it.

The output is linear in the features: each bin is a weighted sum of a few cells. On a CPU it is computed as just that,
a sparse matrix times the map, which is far faster there than torchvision's loops (most of all backward) and comes out
channels last. On CUDA it is torchvision's. A test holds the two together.

Letters: P regions, B bins a side, K cells that a bin can reach along one side.
"""

import torch
from torch.nn import functional as F
from torchvision.ops import roi_align


def align(features: torch.Tensor, regions: torch.Tensor, *, stride: int, size: int, every: int = 1) -> torch.Tensor:
    """Pool each region into size x size bins and return every `every`-th bin of each side.

    Args:
        features: (N, C, H, W), a map of the given stride.
        regions: (P, 5): the image's index and (x1, y1, x2, y2) in pixels of the network's input.

    Returns:
        (P, C, B, B) with B = size / every, rounded up; in the features' dtype.
    """
    if features.is_cuda:
        pooled = roi_align(features, regions, size, 1.0 / stride, sampling_ratio=0, aligned=True)
        return pooled[:, :, ::every, ::every]
    channels, height, width = features.shape[1:]
    regions = regions.to(torch.promote_types(features.dtype, torch.float32))
    corners = regions[:, 1:] / stride - 0.5
    rows, row_weights = _cells_of_bins(corners[:, 1], corners[:, 3], bins=size, cells=height)
    columns, column_weights = _cells_of_bins(corners[:, 0], corners[:, 2], bins=size, cells=width)
    rows, row_weights, columns, column_weights = (
        each[:, ::every] for each in (rows, row_weights, columns, column_weights)
    )
    image = regions[:, :1].long()[:, :, None]
    cells = (image * height + rows)[:, :, None, :, None] * width + columns[:, None, :, None, :]
    weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
    flat = features.permute(0, 2, 3, 1).reshape(-1, channels)
    if flat.requires_grad and flat.dtype == torch.bfloat16:
        flat = flat.float()  # backward adds up the gradients of many bins in a cell: too many for bfloat16
    reach = weights.shape[-2] * weights.shape[-1]
    pooled = F.embedding_bag(
        cells.reshape(-1, reach), flat, per_sample_weights=weights.reshape(-1, reach).to(flat), mode="sum"
    )
    bins = weights.shape[1]
    return pooled.view(len(regions), bins, bins, channels).permute(0, 3, 1, 2).to(features.dtype)


def _cells_of_bins(
    start: torch.Tensor, end: torch.Tensor, *, bins: int, cells: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Along one side: the cells (P, B, K) int64 that each bin reads, and their weights (P, B, K), 0 where none.

    `start` and `end` (P,) are in cells, cell i centred on i. A bin holds as many samples, evenly spread, as the side
    has cells per bin, rounded up; each sample is interpolated between the two cells around it. A sample further than
    one cell outside of the map counts as 0, a nearer one as the border.
    """
    length = end - start
    num_samples = (length / bins).ceil().clamp(min=0)[:, None, None]
    bin_length = (length / bins)[:, None, None]
    most = max(int(num_samples.max()), 1) if len(start) else 1
    number = torch.arange(most, device=start.device)
    bin_starts = start[:, None, None] + torch.arange(bins, device=start.device)[:, None] * bin_length
    samples = bin_starts + (number + 0.5) * bin_length / num_samples.clamp(min=1)
    counts = (number < num_samples) & (samples >= -1) & (samples <= cells)
    samples = samples.clamp(0, cells - 1)
    low = samples.floor()
    above = samples - low
    share = counts / num_samples.clamp(min=1)
    # Neighbouring samples are at most one cell apart: from the first, a bin reaches most + 1 cells.
    first = low[:, :, :1]
    place = (low - first).long().clamp(max=most)
    weights = samples.new_zeros((*samples.shape[:2], most + 2))
    weights.scatter_add_(2, place, (1 - above) * share)
    weights.scatter_add_(2, place + 1, above * share)
    reached = first.long() + torch.arange(most + 2, device=start.device)
    return reached.clamp(max=cells - 1), weights
