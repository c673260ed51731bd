"""Everything after the proposals, in the two ways of Mask R-CNN: C4, where res5 runs on each region, and FPN."""

import torch
from torch import nn

from benchmarks.detection.embedded.heads import FC_CHANNELS, BoxPredictor, build_box_head, build_mask_head
from benchmarks.detection.embedded.instances import Found, Targets
from benchmarks.detection.embedded.poolers import pool_regions
from benchmarks.detection.embedded.region_stage import run_on_regions
from benchmarks.detection.embedded.regions import (
    RegionSettings,
    add_masks,
    box_losses,
    choose_detections,
    draw_sample,
    foreground_indices,
    mask_loss,
)
from benchmarks.detection.embedded.resnet import STAGES, build_res5

FPN_BOX_SIZE, FPN_MASK_SIZE = 7, 14
FPN_MASK_CONVS = 4


class C4Heads(nn.Module):
    """RoIAlign on the one feature map, res5 on each region; box and mask stand on the same features of a region."""

    def __init__(
        self,
        *,
        stride: int,
        masks: bool,
        stride_in_1x1: bool,
        extra_norm: bool,
        settings: RegionSettings,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.settings = settings
        channels = STAGES["res5"][2]
        self.res5 = build_res5(stride_in_1x1=stride_in_1x1, extra_norm=extra_norm)
        self.box_predictor = BoxPredictor(in_channels=channels, num_classes=settings.num_classes)
        self.mask_head: nn.Module | None = None
        if masks:
            self.mask_head = build_mask_head(
                in_channels=channels, num_classes=settings.num_classes, num_convs=0, with_norm=False
            )

    def region_features(self, features: list[torch.Tensor], regions: list[torch.Tensor]) -> torch.Tensor:
        """Features [(N, 1024, H, W)] and regions (P_i, 4) per image to res5's features (P, 2048, 7, 7)."""
        return run_on_regions(self.res5, features[0], regions, stride=self.stride)

    def losses(
        self,
        features: list[torch.Tensor],
        proposals: list[torch.Tensor],
        targets: list[Targets],
        generator: torch.Generator | None,
    ) -> dict[str, torch.Tensor]:
        """`loss_cls`, `loss_box_reg` and, with masks, `loss_mask`, on a sample of the proposals."""
        samples = [draw_sample(p, t, self.settings, generator) for p, t in zip(proposals, targets, strict=True)]
        region_features = self.region_features(features, [s.regions for s in samples])
        logits, deltas = self.box_predictor(region_features.mean(dim=(2, 3)))
        losses = box_losses(logits, deltas, samples, targets)
        if self.mask_head is not None:
            mask_logits = self.mask_head(region_features[foreground_indices(samples)])
            losses["loss_mask"] = mask_loss(mask_logits, samples, targets)
        return losses

    @torch.no_grad()
    def detect(
        self, features: list[torch.Tensor], proposals: list[torch.Tensor], sizes: list[tuple[int, int]]
    ) -> list[Found]:
        """What is found in each image of `sizes` (height, width)."""
        logits, deltas = self.box_predictor(self.region_features(features, proposals).mean(dim=(2, 3)))
        found = choose_detections(logits, deltas, proposals, sizes, self.settings)
        if self.mask_head is None:
            return found
        return add_masks(found, self.mask_head(self.region_features(features, [f.boxes for f in found])))


class FPNHeads(nn.Module):
    """RoIAlign on the level of each region's size; box and mask have networks of their own.

    The box head is `num_convs` convolutions and `num_fcs` linear layers; `norm_in_heads` puts a norm after each
    convolution of the box head and the mask head, which then have no biases. `strides` are those of the levels that
    regions are read from, the first of those that are given to `losses` and `detect`.
    """

    def __init__(
        self,
        *,
        strides: tuple[int, ...],
        in_channels: int,
        masks: bool,
        num_convs: int,
        num_fcs: int,
        norm_in_heads: bool,
        settings: RegionSettings,
    ) -> None:
        super().__init__()
        self.strides = strides
        self.settings = settings
        self.box_head = build_box_head(
            in_channels=in_channels,
            size=FPN_BOX_SIZE,
            num_convs=num_convs,
            num_fcs=num_fcs,
            with_norm=norm_in_heads,
        )
        # Convolutions are faster on the CPU with channels last; linear layers want them first.
        self.box_memory_format = torch.channels_last if num_convs else torch.contiguous_format
        self.box_predictor = BoxPredictor(in_channels=FC_CHANNELS, num_classes=settings.num_classes)
        self.mask_head: nn.Module | None = None
        if masks:
            self.mask_head = build_mask_head(
                in_channels=in_channels,
                num_classes=settings.num_classes,
                num_convs=FPN_MASK_CONVS,
                with_norm=norm_in_heads,
            )

    def predict_boxes(
        self, features: list[torch.Tensor], regions: list[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (P, K + 1) and deltas (P, K, 4) of the regions (P_i, 4) of each image."""
        pooled = pool_regions(features[: len(self.strides)], regions, strides=self.strides, size=FPN_BOX_SIZE)
        return self.box_predictor(self.box_head(pooled.contiguous(memory_format=self.box_memory_format)))

    def predict_masks(self, features: list[torch.Tensor], regions: list[torch.Tensor]) -> torch.Tensor:
        """Mask logits (P, K, 28, 28) of the regions (P_i, 4) of each image."""
        assert self.mask_head is not None
        pooled = pool_regions(features[: len(self.strides)], regions, strides=self.strides, size=FPN_MASK_SIZE)
        return self.mask_head(pooled.contiguous(memory_format=torch.channels_last))

    def losses(
        self,
        features: list[torch.Tensor],
        proposals: list[torch.Tensor],
        targets: list[Targets],
        generator: torch.Generator | None,
    ) -> dict[str, torch.Tensor]:
        """`loss_cls`, `loss_box_reg` and, with masks, `loss_mask`, on a sample of the proposals."""
        samples = [draw_sample(p, t, self.settings, generator) for p, t in zip(proposals, targets, strict=True)]
        logits, deltas = self.predict_boxes(features, [s.regions for s in samples])
        losses = box_losses(logits, deltas, samples, targets)
        if self.mask_head is not None:
            mask_logits = self.predict_masks(features, [s.foreground for s in samples])
            losses["loss_mask"] = mask_loss(mask_logits, samples, targets)
        return losses

    @torch.no_grad()
    def detect(
        self, features: list[torch.Tensor], proposals: list[torch.Tensor], sizes: list[tuple[int, int]]
    ) -> list[Found]:
        """What is found in each image of `sizes` (height, width)."""
        logits, deltas = self.predict_boxes(features, proposals)
        found = choose_detections(logits, deltas, proposals, sizes, self.settings)
        if self.mask_head is None:
            return found
        return add_masks(found, self.predict_masks(features, [f.boxes for f in found]))
