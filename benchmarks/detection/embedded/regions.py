"""What all heads do with regions: draw those that are trained on, the losses on them, and the choice of detections.

Letters: P regions of the whole batch, K classes; class K is background.
"""

from dataclasses import dataclass, replace

import torch
from torch.nn import functional as F
from torchvision.ops import batched_nms

from benchmarks.detection.embedded import boxes as box_ops
from benchmarks.detection.embedded.instances import Found, Targets
from benchmarks.detection.embedded.layers import at_least_float32
from benchmarks.detection.embedded.masks import crop_targets
from benchmarks.detection.embedded.matching import match, sample

DELTA_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
FOREGROUND_FROM = 0.5
FOREGROUND_FRACTION = 0.25


@dataclass(frozen=True)
class RegionSettings:
    """How many regions of an image are trained on, and which detections are kept in testing."""

    num_classes: int
    rois_per_image: int
    score_threshold: float
    nms_threshold: float
    detections_per_image: int


@dataclass(frozen=True)
class Sample:
    """The regions of one image that are trained on, foreground first.

    `regions` (S, 4); `labels` (S,), K for background; `objects` (S,), the index of the object each belongs to, which
    means nothing for background. The first `num_foreground` are foreground.
    """

    regions: torch.Tensor
    labels: torch.Tensor
    objects: torch.Tensor
    num_foreground: int

    @property
    def foreground(self) -> torch.Tensor:
        """The regions (F, 4) that show an object."""
        return self.regions[: self.num_foreground]


@torch.no_grad()
def draw_sample(
    proposals: torch.Tensor, target: Targets, settings: RegionSettings, generator: torch.Generator | None
) -> Sample:
    """Draw the regions of one image to train on from its proposals (P, 4) and its objects' own boxes."""
    candidates = torch.cat((proposals, target.boxes))
    iou = box_ops.pairwise_iou(target.boxes, candidates)
    objects, matched = match(iou, background_below=FOREGROUND_FROM, foreground_from=FOREGROUND_FROM)
    labels = torch.full_like(objects, settings.num_classes)
    is_foreground = matched == 1
    labels[is_foreground] = target.labels[objects[is_foreground]]
    foreground, background = sample(
        labels,
        count=settings.rois_per_image,
        foreground_fraction=FOREGROUND_FRACTION,
        background=settings.num_classes,
        generator=generator,
    )
    drawn = torch.cat((foreground, background))
    return Sample(candidates[drawn], labels[drawn], objects[drawn], len(foreground))


def foreground_indices(samples: list[Sample]) -> torch.Tensor:
    """Where the foreground regions stand among all the regions (P,) of the batch."""
    return torch.cat(
        [torch.arange(len(s.labels), device=s.labels.device) < s.num_foreground for s in samples]
    ).nonzero()[:, 0]


def box_losses(
    logits: torch.Tensor, deltas: torch.Tensor, samples: list[Sample], targets: list[Targets]
) -> dict[str, torch.Tensor]:
    """`loss_cls`, and `loss_box_reg` on the deltas of each foreground region's own class.

    The latter is a sum over the foreground divided by the number of all regions, so that each foreground region
    weighs the same.

    Args:
        logits, deltas: (P, K + 1) and (P, K, 4).
    """
    labels = torch.cat([s.labels for s in samples])
    foreground = foreground_indices(samples)
    boxes = torch.cat([t.boxes[s.objects[: s.num_foreground]] for s, t in zip(samples, targets, strict=True)])
    goals = box_ops.encode(torch.cat([s.foreground for s in samples]), boxes, DELTA_WEIGHTS)
    predicted = deltas[foreground, labels[foreground]]
    return {
        "loss_cls": F.cross_entropy(logits, labels),
        "loss_box_reg": F.l1_loss(predicted, goals, reduction="sum") / max(len(labels), 1),
    }


def mask_loss(mask_logits: torch.Tensor, samples: list[Sample], targets: list[Targets]) -> torch.Tensor:
    """Binary cross-entropy on the map of each foreground region's own class (Mask R-CNN, section 3).

    Args:
        mask_logits: (F, K, S, S) of the foreground regions of all images.
    """
    if len(mask_logits) == 0:
        return mask_logits.sum() * 0
    goals = []
    for one, target in zip(samples, targets, strict=True):
        assert target.masks is not None
        masks = [target.masks[i] for i in one.objects[: one.num_foreground].tolist()]
        goals.append(crop_targets(masks, one.foreground, size=mask_logits.shape[-1]))
    labels = torch.cat([s.labels[: s.num_foreground] for s in samples])
    chosen = at_least_float32(mask_logits[torch.arange(len(labels), device=labels.device), labels])
    return F.binary_cross_entropy_with_logits(chosen, torch.cat(goals).to(chosen))


def choose_detections(
    logits: torch.Tensor,
    deltas: torch.Tensor,
    proposals: list[torch.Tensor],
    sizes: list[tuple[int, int]],
    settings: RegionSettings,
) -> list[Found]:
    """For each image: scores above the threshold, suppression within each class, then the best of all classes.

    Args:
        logits, deltas: (P, K + 1) and (P, K, 4).
        proposals: (P_i, 4) for each image.
        sizes: (height, width) of each image, at which boxes are cut off.
    """
    counts = [len(p) for p in proposals]
    per_image = zip(F.softmax(logits, dim=1).split(counts), deltas.split(counts), proposals, sizes, strict=True)
    found = []
    for scores, image_deltas, regions, size in per_image:
        boxes = box_ops.decode(image_deltas, regions[:, None], DELTA_WEIGHTS)
        finite = boxes.isfinite().all(dim=2).all(dim=1) & scores.isfinite().all(dim=1)
        boxes, scores = box_ops.clip(boxes[finite], size), scores[finite, :-1]
        above = scores > settings.score_threshold
        boxes, scores, labels = boxes[above], scores[above], torch.nonzero(above)[:, 1]
        keep = batched_nms(boxes.to(scores), scores, labels, settings.nms_threshold)[: settings.detections_per_image]
        found.append(Found(boxes[keep], scores[keep], labels[keep]))
    return found


def add_masks(found: list[Found], mask_logits: torch.Tensor) -> list[Found]:
    """The detections of each image, with the mask of its own class out of (P, K, S, S) for each."""
    labels = torch.cat([f.labels for f in found])
    own = mask_logits[torch.arange(len(labels), device=labels.device), labels].float().sigmoid()
    masks = own.split([len(f.boxes) for f in found])
    return [replace(f, mask_probabilities=mask) for f, mask in zip(found, masks, strict=True)]
