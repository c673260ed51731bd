"""Faster and Mask R-CNN with a ResNet-50, C4 or FPN, with Detectron2's names and shapes of weights.

Images are batches (N, 3, H, W), normalised, padded at the bottom and right, H and W multiples of the model's
`size_divisibility`; `sizes` are (height, width) of each image without the padding.
"""

import torch
from torch import nn

from benchmarks.detection.embedded.fpn import FPN
from benchmarks.detection.embedded.instances import Found, Targets
from benchmarks.detection.embedded.regions import RegionSettings
from benchmarks.detection.embedded.resnet import ResNet
from benchmarks.detection.embedded.roi_heads import C4Heads, FPNHeads
from benchmarks.detection.embedded.rpn import ProposalNetwork, ProposalSettings

ANCHOR_SIZES = (32.0, 64.0, 128.0, 256.0, 512.0)


class RCNN(nn.Module):
    """Backbone, proposal generator and heads; a call gives losses, `detect` gives detections."""

    def __init__(
        self, *, backbone: ResNet | FPN, proposal_generator: ProposalNetwork, roi_heads: C4Heads | FPNHeads
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.proposal_generator = proposal_generator
        self.roi_heads = roi_heads

    @property
    def size_divisibility(self) -> int:
        """What the sides of an image are padded to a multiple of; 1 for no padding."""
        return self.backbone.size_divisibility

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
        levels = self.proposal_generator(features)
        losses = self.proposal_generator.losses(levels, targets, generator)
        proposals = self.proposal_generator.proposals(levels, sizes)
        return losses | self.roi_heads.losses(features, proposals, targets, generator)

    @torch.no_grad()
    def detect(self, images: torch.Tensor, sizes: list[tuple[int, int]]) -> list[Found]:
        """What is found in each image; to be called in eval mode."""
        assert not self.training
        features = self.backbone(images)
        proposals = self.proposal_generator.proposals(self.proposal_generator(features), sizes)
        return self.roi_heads.detect(features, proposals, sizes)


def build_r50_c4(
    *,
    masks: bool,
    stride_in_1x1: bool,
    extra_norm: bool,
    proposals: ProposalSettings,
    regions: RegionSettings,
) -> RCNN:
    """R50-C4: proposals and regions on res4, anchors of all sizes in each of its cells; res5 is in the heads."""
    backbone = ResNet(outputs=("res4",), stride_in_1x1=stride_in_1x1)
    proposal_generator = ProposalNetwork(
        channels=backbone.channels[0],
        strides=backbone.strides,
        anchor_sizes=(ANCHOR_SIZES,),
        settings=proposals,
    )
    roi_heads = C4Heads(
        stride=backbone.strides[0],
        masks=masks,
        stride_in_1x1=stride_in_1x1,
        extra_norm=extra_norm,
        settings=regions,
    )
    return RCNN(backbone=backbone, proposal_generator=proposal_generator, roi_heads=roi_heads)


def build_r50_fpn(
    *,
    masks: bool,
    stride_in_1x1: bool,
    box_head_convs: int,
    box_head_fcs: int,
    norm_in_heads: bool,
    proposals: ProposalSettings,
    regions: RegionSettings,
) -> RCNN:
    """R50-FPN: proposals on P2 to P6, each with anchors of one size; regions on P2 to P5."""
    backbone = FPN(stride_in_1x1=stride_in_1x1)
    proposal_generator = ProposalNetwork(
        channels=backbone.channels[0],
        strides=backbone.strides,
        anchor_sizes=tuple((size,) for size in ANCHOR_SIZES),
        settings=proposals,
    )
    roi_heads = FPNHeads(
        strides=backbone.strides[:-1],
        in_channels=backbone.channels[0],
        masks=masks,
        num_convs=box_head_convs,
        num_fcs=box_head_fcs,
        norm_in_heads=norm_in_heads,
        settings=regions,
    )
    return RCNN(backbone=backbone, proposal_generator=proposal_generator, roi_heads=roi_heads)
