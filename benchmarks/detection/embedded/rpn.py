"""The region proposal network: objectness and deltas for every anchor, its two losses, and the best proposals.

Letters: N images, A anchors per cell, R = H * W * A anchors of one feature map.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import batched_nms

from benchmarks.detection.embedded import boxes as box_ops
from benchmarks.detection.embedded.anchors import cell_anchors, grid_anchors
from benchmarks.detection.embedded.instances import Targets
from benchmarks.detection.embedded.layers import at_least_float32, fill_normal
from benchmarks.detection.embedded.matching import IGNORED, match, match_best_too, sample

DELTA_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
ANCHOR_RATIOS = (0.5, 1.0, 2.0)
BACKGROUND_BELOW, FOREGROUND_FROM = 0.3, 0.7
FOREGROUND_FRACTION = 0.5
NMS_THRESHOLD = 0.7


@dataclass(frozen=True)
class ProposalSettings:
    """How many anchors of an image are trained on, and how many proposals are kept, in training and in testing.

    `pre_nms_*` counts those of one feature map before suppression, `post_nms_*` those of one image after it.
    """

    anchors_per_image: int
    pre_nms_train: int
    post_nms_train: int
    pre_nms_test: int
    post_nms_test: int


@dataclass(frozen=True)
class Level:
    """One feature map's anchors (R, 4), and what the network says about them: logits (N, R) and deltas (N, R, 4)."""

    anchors: torch.Tensor
    logits: torch.Tensor
    deltas: torch.Tensor


class Head(nn.Module):
    """3x3 convolution and ReLU, then one 1x1 for objectness and one for deltas; normal(0.01), biases 0."""

    def __init__(self, *, channels: int, num_anchors: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness_logits = nn.Conv2d(channels, num_anchors, 1)
        self.anchor_deltas = nn.Conv2d(channels, num_anchors * 4, 1)
        for layer in (self.conv, self.objectness_logits, self.anchor_deltas):
            fill_normal(layer, std=0.01)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (N, C, H, W) to logits (N, R) and deltas (N, R, 4), in the anchors' order, never bfloat16."""
        x = F.relu_(self.conv(features))
        logits = self.objectness_logits(x).permute(0, 2, 3, 1).flatten(1)
        deltas = self.anchor_deltas(x).permute(0, 2, 3, 1)
        return at_least_float32(logits), at_least_float32(deltas.reshape(len(x), -1, 4))


class ProposalNetwork(nn.Module):
    """One head for all feature maps, with the anchors of each, its losses and its choice of proposals.

    `strides` and `anchor_sizes` (one tuple of equal length for each) say how many feature maps there are.
    """

    cells: torch.Tensor

    def __init__(
        self,
        *,
        channels: int,
        strides: tuple[int, ...],
        anchor_sizes: tuple[tuple[float, ...], ...],
        settings: ProposalSettings,
    ) -> None:
        super().__init__()
        self.strides = strides
        self.settings = settings
        cells = torch.stack([cell_anchors(sizes=sizes, ratios=ANCHOR_RATIOS) for sizes in anchor_sizes])
        assert len(cells) == len(strides)
        self.register_buffer("cells", cells, persistent=False)  # (feature maps, A, 4)
        self.rpn_head = Head(channels=channels, num_anchors=cells.shape[1])

    def forward(self, features: list[torch.Tensor]) -> list[Level]:
        """What the head says about each feature map (N, C, H, W)."""
        return [
            Level(grid_anchors(cell, height=map_.shape[-2], width=map_.shape[-1], stride=stride), *self.rpn_head(map_))
            for map_, cell, stride in zip(features, self.cells, self.strides, strict=True)
        ]

    def losses(
        self, levels: list[Level], targets: list[Targets], generator: torch.Generator | None
    ) -> dict[str, torch.Tensor]:
        """`loss_rpn_cls` and `loss_rpn_loc`: sums over sampled and foreground anchors / (anchors per image * N).

        The sample of an image is drawn from the anchors of all feature maps together.
        """
        anchors = torch.cat([level.anchors for level in levels])
        logits = torch.cat([level.logits for level in levels], dim=1)
        deltas = torch.cat([level.deltas for level in levels], dim=1)
        cls_sum, loc_sum = logits.new_zeros(()), deltas.new_zeros(())
        # Every image's anchors are drawn before any proposal is: Detectron2's order of draws.
        for image, target in enumerate(targets):
            objects, labels = self._label_anchors(anchors, target.boxes, generator)
            drawn = labels != IGNORED
            cls_sum = cls_sum + F.binary_cross_entropy_with_logits(
                logits[image][drawn], labels[drawn].float(), reduction="sum"
            )
            foreground = labels == 1
            goals = box_ops.encode(anchors[foreground], target.boxes[objects[foreground]], DELTA_WEIGHTS)
            loc_sum = loc_sum + F.l1_loss(deltas[image][foreground], goals, reduction="sum")
        normaliser = self.settings.anchors_per_image * len(targets)
        return {"loss_rpn_cls": cls_sum / normaliser, "loss_rpn_loc": loc_sum / normaliser}

    @torch.no_grad()
    def _label_anchors(
        self, anchors: torch.Tensor, boxes: torch.Tensor, generator: torch.Generator | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The object of each anchor, and 1, 0 or -1 with all but the sample ignored."""
        iou = box_ops.pairwise_iou(boxes, anchors)
        objects, labels = match(iou, background_below=BACKGROUND_BELOW, foreground_from=FOREGROUND_FROM)
        foreground, background = sample(
            match_best_too(iou, labels),
            count=self.settings.anchors_per_image,
            foreground_fraction=FOREGROUND_FRACTION,
            background=0,
            generator=generator,
        )
        drawn = torch.full_like(labels, IGNORED)
        drawn[foreground] = 1
        drawn[background] = 0
        return objects, drawn

    @torch.no_grad()
    def proposals(self, levels: list[Level], sizes: list[tuple[int, int]]) -> list[torch.Tensor]:
        """The best proposals (P, 4) of each image, best first, cut at the image's `size` (height, width).

        The best of each feature map before suppression, which is within a feature map; then the best of the image.

        Raises:
            FloatingPointError: in training, a box or logit is not finite.
        """
        counts = self.settings
        pre_nms, post_nms = counts.pre_nms_test, counts.post_nms_test
        if self.training:
            pre_nms, post_nms = counts.pre_nms_train, counts.post_nms_train
        best = [_best_of_level(level, pre_nms) for level in levels]
        all_boxes, all_logits = (torch.cat(parts, dim=1) for parts in zip(*best, strict=True))
        numbers = torch.cat([torch.full_like(logits[0], i, dtype=torch.int64) for i, (_, logits) in enumerate(best)])
        found = []
        for boxes, logits, size in zip(all_boxes, all_logits, sizes, strict=True):
            finite = boxes.isfinite().all(dim=1) & logits.isfinite()
            if self.training and not finite.all():
                raise FloatingPointError("proposals are not finite")
            clipped = box_ops.clip(boxes, size)
            usable = finite & box_ops.have_area(clipped)
            kept = clipped[usable]
            found.append(kept[batched_nms(kept.to(logits), logits[usable], numbers[usable], NMS_THRESHOLD)[:post_nms]])
        return found


def _best_of_level(level: Level, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes (N, k, 4) and logits (N, k) of the `count` best anchors of each image, best first."""
    logits, best = level.logits.topk(min(count, level.logits.shape[1]), dim=1)
    deltas = level.deltas.gather(1, best[..., None].expand(-1, -1, 4))
    return box_ops.decode(deltas, level.anchors[best], DELTA_WEIGHTS), logits
