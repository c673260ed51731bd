"""The C4 heads: RoIAlign on res4, res5 per region, then a class, a box and perhaps a mask for each.

Letters: P regions of the whole batch, K classes; class K is background.
"""

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import batched_nms, roi_align

from benchmarks.detection.embedded import boxes as box_ops
from benchmarks.detection.embedded.instances import Found, Targets
from benchmarks.detection.embedded.masks import crop_targets
from benchmarks.detection.embedded.matching import match, sample
from benchmarks.detection.embedded.resnet import STAGES, build_res5

DELTA_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
POOLED_SIZE = 14
FOREGROUND_FROM = 0.5
FOREGROUND_FRACTION = 0.25
MASK_CHANNELS = 256
REGION_CHANNELS = STAGES["res5"][2]


class BoxPredictor(nn.Module):
    """Pooled region features (P, C) to logits (P, K + 1) and class-specific deltas (P, K, 4), float32."""

    def __init__(self, *, num_classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(REGION_CHANNELS, num_classes + 1)
        self.bbox_pred = nn.Linear(REGION_CHANNELS, num_classes * 4)
        for layer, std in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.cls_score(x).float(), self.bbox_pred(x).float().view(len(x), -1, 4)


class MaskHead(nn.Module):
    """Region features (P, C, 7, 7) to one 14x14 map of mask logits per class (P, K, 14, 14), float32."""

    def __init__(self, *, num_classes: int) -> None:
        super().__init__()
        self.deconv = nn.ConvTranspose2d(REGION_CHANNELS, MASK_CHANNELS, 2, stride=2)
        self.predictor = nn.Conv2d(MASK_CHANNELS, num_classes, 1)
        nn.init.kaiming_normal_(self.deconv.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.predictor.weight, std=0.001)
        for layer in (self.deconv, self.predictor):
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.predictor(F.relu_(self.deconv(x))).float()


class C4Heads(nn.Module):
    """Everything after the proposals."""

    def __init__(
        self,
        *,
        num_classes: int,
        masks: bool,
        stride: int,
        stride_in_1x1: bool,
        extra_norm: bool,
        rois_per_image: int,
        score_threshold: float,
        nms_threshold: float,
        detections_per_image: int,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.scale = 1.0 / stride
        self.rois_per_image = rois_per_image
        self.score_threshold = score_threshold
        self.nms_threshold = nms_threshold
        self.detections_per_image = detections_per_image
        self.res5 = build_res5(stride_in_1x1=stride_in_1x1, extra_norm=extra_norm)
        self.box_predictor = BoxPredictor(num_classes=num_classes)
        self.mask_head = MaskHead(num_classes=num_classes) if masks else None

    def region_features(self, features: torch.Tensor, regions: list[torch.Tensor]) -> torch.Tensor:
        """Features (N, 1024, H, W) and regions (P_i, 4) per image to res5's features (P, 2048, 7, 7)."""
        pooled = roi_align(features, regions, POOLED_SIZE, self.scale, sampling_ratio=0, aligned=True)
        return self.res5(pooled.contiguous(memory_format=torch.channels_last))

    def losses(
        self,
        features: torch.Tensor,
        proposals: list[torch.Tensor],
        targets: list[Targets],
        generator: torch.Generator | None,
    ) -> dict[str, torch.Tensor]:
        """`loss_cls`, `loss_box_reg` and, with masks, `loss_mask`, on a sample of the proposals."""
        samples = [self._sample(p, t, generator) for p, t in zip(proposals, targets, strict=True)]
        regions = [regions for regions, _, _ in samples]
        objects = [objects for _, objects, _ in samples]
        labels = torch.cat([labels for _, _, labels in samples])
        features = self.region_features(features, regions)
        logits, deltas = self.box_predictor(features.mean(dim=(2, 3)))
        foreground = torch.nonzero(labels < self.num_classes).squeeze(1)
        losses = {
            "loss_cls": F.cross_entropy(logits, labels),
            "loss_box_reg": self._box_loss(deltas, regions, objects, labels, foreground, targets),
        }
        if self.mask_head is not None:
            mask_logits = self.mask_head(features[foreground])
            losses["loss_mask"] = self._mask_loss(mask_logits, regions, objects, labels, targets)
        return losses

    @torch.no_grad()
    def _sample(
        self, proposals: torch.Tensor, target: Targets, generator: torch.Generator | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Regions (S, 4) of one image, foreground first; the object and the label (background K) of each."""
        candidates = torch.cat((proposals, target.boxes))
        iou = box_ops.pairwise_iou(target.boxes, candidates)
        objects, matched = match(iou, background_below=FOREGROUND_FROM, foreground_from=FOREGROUND_FROM)
        labels = torch.full_like(objects, self.num_classes)
        foreground = matched == 1
        labels[foreground] = target.labels[objects[foreground]]
        drawn = torch.cat(
            sample(
                labels,
                count=self.rois_per_image,
                foreground_fraction=FOREGROUND_FRACTION,
                background=self.num_classes,
                generator=generator,
            )
        )
        return candidates[drawn], objects[drawn], labels[drawn]

    def _box_loss(
        self,
        deltas: torch.Tensor,
        regions: list[torch.Tensor],
        objects: list[torch.Tensor],
        labels: torch.Tensor,
        foreground: torch.Tensor,
        targets: list[Targets],
    ) -> torch.Tensor:
        """L1 over the foreground, divided by all sampled regions, so that each foreground region weighs the same."""
        # An image without objects has no box to index; its regions are all background and their goal is never read.
        matched = [
            t.boxes[index] if len(t.boxes) else region
            for t, index, region in zip(targets, objects, regions, strict=True)
        ]
        goals = box_ops.encode(torch.cat(regions)[foreground], torch.cat(matched)[foreground], DELTA_WEIGHTS)
        predicted = deltas[foreground, labels[foreground]]
        return F.l1_loss(predicted, goals, reduction="sum") / max(len(labels), 1)

    def _mask_loss(
        self,
        mask_logits: torch.Tensor,
        regions: list[torch.Tensor],
        objects: list[torch.Tensor],
        labels: torch.Tensor,
        targets: list[Targets],
    ) -> torch.Tensor:
        """Binary cross-entropy on the map of each foreground region's own class (Mask R-CNN, section 3)."""
        if len(mask_logits) == 0:
            return mask_logits.sum() * 0
        per_image = labels.split([len(region) for region in regions])
        goals = []
        for region, index, label, target in zip(regions, objects, per_image, targets, strict=True):
            assert target.masks is not None
            foreground = torch.nonzero(label < self.num_classes).squeeze(1)
            masks = [target.masks[i] for i in index[foreground].tolist()]
            goals.append(crop_targets(masks, region[foreground], size=mask_logits.shape[-1]))
        own = labels[labels < self.num_classes]
        chosen = mask_logits[torch.arange(len(own), device=own.device), own]
        return F.binary_cross_entropy_with_logits(chosen, torch.cat(goals).to(chosen))

    @torch.no_grad()
    def detect(
        self, features: torch.Tensor, proposals: list[torch.Tensor], sizes: list[tuple[int, int]]
    ) -> list[Found]:
        """What is found in each image of `sizes` (height, width)."""
        region_features = self.region_features(features, proposals)
        logits, deltas = self.box_predictor(region_features.mean(dim=(2, 3)))
        counts = [len(p) for p in proposals]
        per_image = zip(F.softmax(logits, dim=1).split(counts), deltas.split(counts), proposals, sizes, strict=True)
        found = [self._select(*parts) for parts in per_image]
        return found if self.mask_head is None else self._add_masks(features, found)

    def _select(
        self, scores: torch.Tensor, deltas: torch.Tensor, proposals: torch.Tensor, size: tuple[int, int]
    ) -> Found:
        """Score threshold, then suppression within each class, then the best of all classes."""
        boxes = box_ops.decode(deltas, proposals[:, None], DELTA_WEIGHTS)
        finite = boxes.isfinite().all(dim=2).all(dim=1) & scores.isfinite().all(dim=1)
        boxes, scores = box_ops.clip(boxes[finite], size), scores[finite, :-1]
        above = scores > self.score_threshold
        boxes, scores, labels = boxes[above], scores[above], torch.nonzero(above)[:, 1]
        keep = batched_nms(boxes, scores, labels, self.nms_threshold)[: self.detections_per_image]
        return Found(boxes[keep], scores[keep], labels[keep])

    def _add_masks(self, features: torch.Tensor, found: list[Found]) -> list[Found]:
        """The mask of each detection's own class, pooled again from the detected box."""
        assert self.mask_head is not None
        labels = torch.cat([f.labels for f in found])
        logits = self.mask_head(self.region_features(features, [f.boxes for f in found]))
        own = logits[torch.arange(len(labels), device=labels.device), labels].sigmoid()
        masks = own.split([len(f.boxes) for f in found])
        return [Found(f.boxes, f.scores, f.labels, mask) for f, mask in zip(found, masks, strict=True)]
