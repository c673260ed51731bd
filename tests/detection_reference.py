"""The embedded detector and the real Detectron2's behind one face, so that both can be asked the same things."""

from dataclasses import dataclass, replace
from functools import cache, partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from detection_examples import Picture
from torch import nn
from torchvision.ops import batched_nms

from benchmarks.detection.embedded.precise_bn import set_precise_statistics
from benchmarks.detection.embedded.solver import build_optimizer, learning_rate_factor
from benchmarks.detection.embedded_detection import to_detections
from benchmarks.detection.embedded_model import build_model
from benchmarks.detection.input import assemble
from benchmarks.detection.protocol import (
    COCO_FPN_2FC_1X,
    COCO_FPN_4CONV1FC_1X,
    COCO_PAPER,
    VOC_PAPER,
    DetectionProtocol,
)
from benchmarks.detection.records import Detections
from transfer.backbone import IMAGENET_RGB, Backbone
from transfer.network import random_backbone


@dataclass(frozen=True)
class Variant:
    """A detector twice: the protocol that the embedded one is built from, and Detectron2's own configuration file."""

    protocol: DetectionProtocol
    config: str
    in_config: tuple[Any, ...] = ()  # what the file leaves open or has otherwise
    stride_in_1x1: bool = False


VARIANTS = {
    "c4-boxes": Variant(VOC_PAPER, "COCO-Detection/faster_rcnn_R_50_C4_1x.yaml"),
    "c4-masks": Variant(COCO_PAPER, "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml"),
    "fpn-2fc-boxes": Variant(
        replace(COCO_FPN_2FC_1X, masks=False),
        "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml",
        ("MODEL.FPN.NORM", "BN"),
    ),
    "fpn-2fc-masks": Variant(
        COCO_FPN_2FC_1X, "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml", ("MODEL.FPN.NORM", "BN")
    ),
    "fpn-4conv1fc-boxes": Variant(
        replace(COCO_FPN_4CONV1FC_1X, masks=False),
        "Misc/mask_rcnn_R_50_FPN_3x_syncbn.yaml",
        ("MODEL.MASK_ON", False, "MODEL.FPN.NORM", "BN", "MODEL.ROI_BOX_HEAD.NORM", "BN"),
    ),
    "fpn-4conv1fc-masks": Variant(
        COCO_FPN_4CONV1FC_1X,
        "Misc/mask_rcnn_R_50_FPN_3x_syncbn.yaml",
        ("MODEL.FPN.NORM", "BN", "MODEL.ROI_BOX_HEAD.NORM", "BN", "MODEL.ROI_MASK_HEAD.NORM", "BN"),
    ),
}


@dataclass(frozen=True)
class Sizes:
    """How much of everything: small, so that a step takes a second. The counts of the paper are compared apart."""

    rois_per_image: int = 8  # two of them foreground at most: fewer than there are
    rpn_anchors_per_image: int = 16
    rpn_pre_nms_train: int = 200
    rpn_post_nms_train: int = 40
    rpn_pre_nms_test: int = 150
    rpn_post_nms_test: int = 30
    detections_per_image: int = 40


@dataclass(frozen=True)
class Solver:
    """The learning rate's course, short."""

    learning_rate: float = 0.005
    iterations: int = 20
    warmup_iterations: int = 8
    decay_iterations: tuple[int, ...] = (14, 18)


Losses = dict[str, torch.Tensor]


class Embedded:
    """The embedded detector as its engine uses it: channels last, samples drawn from a generator of its own."""

    def __init__(self, variant: Variant, *, num_classes: int, sizes: Sizes) -> None:
        protocol = replace(variant.protocol, **vars(sizes))
        self.protocol = protocol
        self.model: Any = build_model(imagenet_backbone(), protocol, num_classes=num_classes, seed=0)
        self.model.to(memory_format=torch.channels_last)

    def _assembled(self, batch: list[Picture]) -> tuple[torch.Tensor, list[tuple[int, int]]]:
        divisor = self.model.size_divisibility
        examples = [picture.example for picture in batch]
        images, sizes = assemble(examples, IMAGENET_RGB, torch.device("cpu"), size_divisibility=divisor)
        if next(self.model.parameters()).dtype == torch.float64:
            images = images.double()
            for image, example, (height, width) in zip(images, examples, sizes, strict=True):
                image[:, :height, :width] = IMAGENET_RGB.prepare(example.pixels.double() / 255)
        return images, sizes

    def losses(self, batch: list[Picture], seed: int) -> Losses:
        images, sizes = self._assembled(batch)
        targets = [picture.example.targets for picture in batch]
        return self.model.train()(images, sizes, targets, torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def proposals(self, batch: list[Picture]) -> list[torch.Tensor]:
        images, sizes = self._assembled(batch)
        network = self.model.eval().proposal_generator
        return network.proposals(network(self.model.backbone(images)), sizes)

    def detections(self, batch: list[Picture]) -> list[Detections]:
        images, sizes = self._assembled(batch)
        found = self.model.eval().detect(images, sizes)
        return [to_detections(f, p.record, size=s) for f, p, s in zip(found, batch, sizes, strict=True)]

    def make_precise(self, batches: list[list[Picture]]) -> None:
        set_precise_statistics(self.model, (partial(self.losses, b, seed) for seed, b in enumerate(batches)))

    def solver(self, solver: Solver) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        protocol = replace(self.protocol, **vars(solver))
        optimizer = build_optimizer(
            self.model,
            learning_rate=protocol.learning_rate,
            momentum=protocol.momentum,
            weight_decay=protocol.weight_decay,
            weight_decay_norm=protocol.weight_decay_norm,
        )
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor_of(protocol))


def factor_of(protocol: DetectionProtocol) -> Any:
    """The embedded engine's learning-rate factor as a function of the iteration."""
    return partial(
        learning_rate_factor,
        decay_iterations=protocol.decay_iterations,
        decay_factor=protocol.decay_factor,
        warmup_iterations=protocol.warmup_iterations,
        warmup_factor=protocol.warmup_factor,
    )


class Detectron2:
    """Detectron2's own detector, built, fed and trained by its own functions."""

    def __init__(self, variant: Variant, *, num_classes: int, sizes: Sizes) -> None:
        from detectron2.modeling import build_model

        self.cfg = detectron2_config(variant, num_classes=num_classes, sizes=sizes)
        self.model: Any = build_model(self.cfg)
        # The embedded engine's layout: the same sums in the same order, so that what is left is not rounding.
        self.model.to(memory_format=torch.channels_last)
        if variant.protocol.extra_norm:
            # What MoCo's detection code puts after res5.
            self.model.roi_heads.res5.add_module("norm", nn.BatchNorm2d(2048))

    def losses(self, batch: list[Picture], seed: int) -> Losses:
        from detectron2.utils.events import EventStorage

        torch.manual_seed(seed)
        with EventStorage():
            return self.model.train()(detectron2_inputs(batch, with_targets=True))

    @torch.no_grad()
    def proposals(self, batch: list[Picture]) -> list[torch.Tensor]:
        images = self.model.eval().preprocess_image(detectron2_inputs(batch))
        proposals, _ = self.model.proposal_generator(images, self.model.backbone(images.tensor))
        return [each.proposal_boxes.tensor for each in proposals]

    @torch.no_grad()
    def detections(self, batch: list[Picture]) -> list[Detections]:
        from pycocotools import mask as coco_mask

        found = []
        for picture, output in zip(batch, self.model.eval()(detectron2_inputs(batch)), strict=True):
            each = output["instances"]
            masks = None
            if each.has("pred_masks"):
                masks = tuple(coco_mask.encode(np.asfortranarray(m)) for m in each.pred_masks.numpy().astype(np.uint8))
            arrays = each.pred_boxes.tensor.numpy(), each.scores.numpy(), each.pred_classes.numpy()
            found.append(Detections(picture.record.image_id, *arrays, masks))
        return found

    def make_precise(self, batches: list[list[Picture]]) -> None:
        from detectron2.utils.events import EventStorage
        from fvcore.nn.precise_bn import update_bn_stats

        self.model.train()
        seeds = iter(range(len(batches)))
        forward = self.model.forward

        def seeded(inputs: Any) -> Any:
            torch.manual_seed(next(seeds))
            return forward(inputs)

        self.model.forward = seeded
        try:
            with EventStorage():
                update_bn_stats(self.model, [detectron2_inputs(b, with_targets=True) for b in batches], len(batches))
        finally:
            del self.model.forward

    def solver(self, solver: Solver) -> tuple[torch.optim.Optimizer, Any]:
        from detectron2.solver import build_lr_scheduler, build_optimizer

        cfg = self.cfg.clone()
        cfg.SOLVER.BASE_LR = solver.learning_rate
        cfg.SOLVER.MAX_ITER = solver.iterations
        cfg.SOLVER.WARMUP_ITERS = solver.warmup_iterations
        cfg.SOLVER.STEPS = solver.decay_iterations
        optimizer = build_optimizer(cfg, self.model)
        return optimizer, build_lr_scheduler(cfg, optimizer)


def detectron2_config(variant: Variant, *, num_classes: int, sizes: Sizes | None = None) -> Any:
    """The configuration file with MoCo's changes: nothing frozen, BN that learns, the input of ImageNet weights."""
    from detectron2 import model_zoo

    cfg = model_zoo.get_config(variant.config)
    cfg.merge_from_list(list(variant.in_config))
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = variant.stride_in_1x1
    cfg.MODEL.PIXEL_MEAN = [255 * value for value in IMAGENET_RGB.mean]
    cfg.MODEL.PIXEL_STD = [255 * value for value in IMAGENET_RGB.std]
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = num_classes
    if sizes is not None:
        cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = sizes.rois_per_image
        cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE = sizes.rpn_anchors_per_image
        cfg.MODEL.RPN.PRE_NMS_TOPK_TRAIN = sizes.rpn_pre_nms_train
        cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = sizes.rpn_post_nms_train
        cfg.MODEL.RPN.PRE_NMS_TOPK_TEST = sizes.rpn_pre_nms_test
        cfg.MODEL.RPN.POST_NMS_TOPK_TEST = sizes.rpn_post_nms_test
        cfg.TEST.DETECTIONS_PER_IMAGE = sizes.detections_per_image
    return cfg


def detectron2_inputs(batch: list[Picture], *, with_targets: bool = False) -> list[dict[str, Any]]:
    """The pictures as Detectron2's mapper hands them over."""
    from detectron2.structures import Boxes, Instances, PolygonMasks

    inputs = []
    for picture in batch:
        record, pixels, targets = picture.record, picture.example.pixels, picture.example.targets
        one: dict[str, Any] = {"image": pixels, "height": record.height, "width": record.width}
        if with_targets:
            one["instances"] = Instances(pixels.shape[1:], gt_boxes=Boxes(targets.boxes), gt_classes=targets.labels)
            if targets.masks is not None:
                one["instances"].gt_masks = PolygonMasks(list(targets.masks))
        inputs.append(one)
    return inputs


@cache
def imagenet_backbone() -> Backbone:
    return random_backbone("resnet50", seed=0)


def _nms_in_the_scores_type(
    boxes: torch.Tensor, scores: torch.Tensor, groups: torch.Tensor, iou_threshold: float
) -> torch.Tensor:
    return batched_nms(boxes.to(scores), scores, groups, iou_threshold)


def in_float64(engine: "Embedded | Detectron2") -> None:
    """Put a detector and its images into double precision, so that rounding hides and excuses nothing.

    In float32 a sum in another order turns a few ReLUs of a million over, and each changes the gradients of its
    channel by percents. Boxes and anchors stay in float32: Detectron2 knows no others.
    """
    engine.model.double()
    network = engine.model.proposal_generator
    if isinstance(engine, Embedded):
        network.cells = network.cells.float()
    else:
        # Made in float32, they would differ from ours in the eighth digit.
        for name, values in (("mean", IMAGENET_RGB.mean), ("std", IMAGENET_RGB.std)):
            exact = [255 * value for value in values]
            setattr(engine.model, f"pixel_{name}", torch.tensor(exact, dtype=torch.float64).view(3, 1, 1))
        network.anchor_generator.float()
        # By its full name: the package has a function of the module's name.
        suppression = import_module("detectron2.layers.nms")
        suppression.box_ops = SimpleNamespace(batched_nms=_nms_in_the_scores_type)


def train(engine: "Embedded | Detectron2", batches: list[list[Picture]], solver: Solver) -> list[dict[str, float]]:
    """Each loss at each step of SGD."""
    optimizer, schedule = engine.solver(solver)
    course = []
    for step in range(solver.iterations):
        losses = engine.losses(batches[step % len(batches)], seed=100 + step)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        schedule.step()
        course.append({name: float(loss.detach()) for name, loss in losses.items()})
    return course
