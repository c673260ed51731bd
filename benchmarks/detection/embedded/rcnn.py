"""Faster and Mask R-CNN R50-C4, with Detectron2's names and shapes of weights.

Images are batches (N, 3, H, W), normalised and padded at the bottom and right; `sizes` are (height, width) of each
image without the padding.
"""

import torch
from torch import nn

from benchmarks.detection.embedded.instances import Found, Targets
from benchmarks.detection.embedded.resnet import Trunk
from benchmarks.detection.embedded.roi_heads import C4Heads
from benchmarks.detection.embedded.rpn import ProposalNetwork


class RCNN(nn.Module):
    """Backbone, proposal generator and heads; a call gives losses, `detect` gives detections."""

    def __init__(
        self,
        *,
        num_classes: int,
        masks: bool,
        stride_in_1x1: bool,
        extra_norm: bool,
        rois_per_image: int,
        rpn_anchors_per_image: int,
        rpn_pre_nms_train: int,
        rpn_post_nms_train: int,
        rpn_pre_nms_test: int,
        rpn_post_nms_test: int,
        score_threshold: float,
        nms_threshold: float,
        detections_per_image: int,
    ) -> None:
        super().__init__()
        self.backbone = Trunk(stride_in_1x1=stride_in_1x1)
        self.proposal_generator = ProposalNetwork(
            channels=Trunk.out_channels,
            stride=Trunk.stride,
            anchors_per_image=rpn_anchors_per_image,
            pre_nms_train=rpn_pre_nms_train,
            post_nms_train=rpn_post_nms_train,
            pre_nms_test=rpn_pre_nms_test,
            post_nms_test=rpn_post_nms_test,
        )
        self.roi_heads = C4Heads(
            num_classes=num_classes,
            masks=masks,
            stride=Trunk.stride,
            stride_in_1x1=stride_in_1x1,
            extra_norm=extra_norm,
            rois_per_image=rois_per_image,
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
            detections_per_image=detections_per_image,
        )

    def forward(
        self,
        images: torch.Tensor,
        sizes: list[tuple[int, int]],
        targets: list[Targets],
        generator: torch.Generator | None = None,
    ) -> dict[str, torch.Tensor]:
        """The four losses, or five with masks, each a float32 scalar.

        Args:
            generator: draws the samples, on the images' device; None for torch's own.

        Raises:
            FloatingPointError: the proposals are not finite.
        """
        features = self.backbone(images)
        logits, deltas = self.proposal_generator.rpn_head(features)
        anchors = self.proposal_generator.anchors(features)
        losses = self.proposal_generator.losses(anchors, logits, deltas, targets, generator)
        proposals = self.proposal_generator.proposals(anchors, logits, deltas, sizes)
        return losses | self.roi_heads.losses(features, proposals, targets, generator)

    @torch.no_grad()
    def detect(self, images: torch.Tensor, sizes: list[tuple[int, int]]) -> list[Found]:
        """What is found in each image; to be called in eval mode."""
        assert not self.training
        features = self.backbone(images)
        logits, deltas = self.proposal_generator.rpn_head(features)
        anchors = self.proposal_generator.anchors(features)
        proposals = self.proposal_generator.proposals(anchors, logits, deltas, sizes)
        return self.roi_heads.detect(features, proposals, sizes)
