"""The region proposal network: objectness and deltas for every anchor, its two losses, and the best proposals.

Letters: N images, A anchors per cell, R = H * W * A anchors per image.
"""

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import nms

from benchmarks.detection.embedded import boxes as box_ops
from benchmarks.detection.embedded.anchors import cell_anchors, grid_anchors
from benchmarks.detection.embedded.instances import Targets
from benchmarks.detection.embedded.matching import IGNORED, match, match_best_too, sample

DELTA_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
# Base-RCNN-C4: all sizes on the one feature map.
ANCHOR_SIZES = (32.0, 64.0, 128.0, 256.0, 512.0)
ANCHOR_RATIOS = (0.5, 1.0, 2.0)
BACKGROUND_BELOW, FOREGROUND_FROM = 0.3, 0.7
FOREGROUND_FRACTION = 0.5
NMS_THRESHOLD = 0.7


class Head(nn.Module):
    """3x3 convolution and ReLU, then one 1x1 for objectness and one for deltas; normal(0.01), biases 0."""

    def __init__(self, *, channels: int, num_anchors: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness_logits = nn.Conv2d(channels, num_anchors, 1)
        self.anchor_deltas = nn.Conv2d(channels, num_anchors * 4, 1)
        for layer in (self.conv, self.objectness_logits, self.anchor_deltas):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (N, C, H, W) to logits (N, R) and deltas (N, R, 4), in the anchors' order, float32."""
        x = F.relu_(self.conv(features))
        logits = self.objectness_logits(x).permute(0, 2, 3, 1).flatten(1)
        deltas = self.anchor_deltas(x).permute(0, 2, 3, 1)
        return logits.float(), deltas.reshape(len(x), -1, 4).float()


class ProposalNetwork(nn.Module):
    """The head with its anchors, its losses and its choice of proposals."""

    cell: torch.Tensor

    def __init__(
        self,
        *,
        channels: int,
        stride: int,
        anchors_per_image: int,
        pre_nms_train: int,
        post_nms_train: int,
        pre_nms_test: int,
        post_nms_test: int,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.anchors_per_image = anchors_per_image
        self.num_proposals_train = (pre_nms_train, post_nms_train)
        self.num_proposals_test = (pre_nms_test, post_nms_test)
        self.register_buffer("cell", cell_anchors(sizes=ANCHOR_SIZES, ratios=ANCHOR_RATIOS), persistent=False)
        self.rpn_head = Head(channels=channels, num_anchors=len(self.cell))

    def anchors(self, features: torch.Tensor) -> torch.Tensor:
        """Anchors (R, 4) of these features (N, C, H, W)."""
        height, width = features.shape[-2:]
        return grid_anchors(self.cell, height=height, width=width, stride=self.stride)

    def losses(
        self,
        anchors: torch.Tensor,
        logits: torch.Tensor,
        deltas: torch.Tensor,
        targets: list[Targets],
        generator: torch.Generator | None,
    ) -> dict[str, torch.Tensor]:
        """`loss_rpn_cls` and `loss_rpn_loc`: sums over sampled and foreground anchors / (anchors per image * N)."""
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
        normaliser = self.anchors_per_image * len(targets)
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
            count=self.anchors_per_image,
            foreground_fraction=FOREGROUND_FRACTION,
            background=0,
            generator=generator,
        )
        drawn = torch.full_like(labels, IGNORED)
        drawn[foreground] = 1
        drawn[background] = 0
        return objects, drawn

    @torch.no_grad()
    def proposals(
        self, anchors: torch.Tensor, logits: torch.Tensor, deltas: torch.Tensor, sizes: list[tuple[int, int]]
    ) -> list[torch.Tensor]:
        """The best proposals (P, 4) of each image, best first, cut at the image's `size` (height, width).

        Raises:
            FloatingPointError: in training, a box or logit is not finite.
        """
        pre_nms, post_nms = self.num_proposals_train if self.training else self.num_proposals_test
        best_logits, best = logits.topk(min(pre_nms, logits.shape[1]), dim=1)
        found = []
        for image, size in enumerate(sizes):
            chosen = best[image]
            boxes = box_ops.decode(deltas[image][chosen], anchors[chosen], DELTA_WEIGHTS)
            finite = boxes.isfinite().all(dim=1) & best_logits[image].isfinite()
            if self.training and not finite.all():
                raise FloatingPointError("proposals are not finite")
            boxes = box_ops.clip(boxes, size)
            usable = finite & box_ops.have_area(boxes)
            boxes, scores = boxes[usable], best_logits[image][usable]
            found.append(boxes[nms(boxes, scores, NMS_THRESHOLD)[:post_nms]])
        return found
