"""A detection protocol as Detectron2's configuration.

Facts of the FPN models: Detectron2 0.6's Base-RCNN-FPN.yaml and mask_rcnn_R_50_FPN_3x_syncbn.yaml; of the C4 models:
its defaults. What no protocol sets keeps Detectron2's default.
"""

from typing import Any

from benchmarks.detection.detectron2_heads import register_extra_norm_heads
from benchmarks.detection.embedded_model import FPN_BOX_HEADS
from benchmarks.detection.protocol import DetectionProtocol
from mocobench.runtime.errors import UserError
from transfer.backbone import InputSpec

STAGES = ["res2", "res3", "res4", "res5"]
LEVELS = ["p2", "p3", "p4", "p5", "p6"]
# Detectron2 gives pixels from 0 to this to its models.
MAX_PIXEL = 255.0
# Its configuration knows whether to flip, not how often.
FLIPS = {0.0: "none", 0.5: "horizontal"}


def build_config(
    protocol: DetectionProtocol, *, spec: InputSpec, stride_in_1x1: bool, num_classes: int, norm: str
) -> Any:
    """The CfgNode of a protocol and of the weights' side; the run's own entries (data, device, seed) are not set.

    Args:
        spec: the input convention of the backbone.
        stride_in_1x1: whether the backbone's bottlenecks have their stride in the first convolution.
        norm: Detectron2's name of the norm that stands for the protocol's on these devices.

    Raises:
        UserError: a value that Detectron2's configuration cannot hold.
    """
    from detectron2.config import get_cfg

    cfg = get_cfg()
    _set_model(cfg, protocol, num_classes=num_classes, norm=norm)
    if protocol.model == "R50-FPN":
        _set_fpn(cfg, protocol, norm=norm)
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = stride_in_1x1
    _set_input(cfg, protocol, spec)
    _set_solver(cfg, protocol)
    return cfg


def _set_model(cfg: Any, protocol: DetectionProtocol, *, num_classes: int, norm: str) -> None:
    """What C4 and FPN share; Detectron2's defaults are a C4."""
    model = cfg.MODEL
    model.MASK_ON = protocol.masks
    model.BACKBONE.FREEZE_AT = 0  # every weight is fine-tuned
    model.RESNETS.DEPTH = 50
    model.RESNETS.NORM = norm
    model.RPN.BATCH_SIZE_PER_IMAGE = protocol.rpn_anchors_per_image
    model.RPN.PRE_NMS_TOPK_TRAIN = protocol.rpn_pre_nms_train
    model.RPN.POST_NMS_TOPK_TRAIN = protocol.rpn_post_nms_train
    model.RPN.PRE_NMS_TOPK_TEST = protocol.rpn_pre_nms_test
    model.RPN.POST_NMS_TOPK_TEST = protocol.rpn_post_nms_test
    model.ROI_HEADS.NUM_CLASSES = num_classes
    model.ROI_HEADS.BATCH_SIZE_PER_IMAGE = protocol.rois_per_image
    model.ROI_HEADS.SCORE_THRESH_TEST = protocol.score_threshold
    model.ROI_HEADS.NMS_THRESH_TEST = protocol.nms_threshold
    if protocol.extra_norm:
        model.ROI_HEADS.NAME = register_extra_norm_heads()
    cfg.TEST.DETECTIONS_PER_IMAGE = protocol.detections_per_image


def _set_fpn(cfg: Any, protocol: DetectionProtocol, *, norm: str) -> None:
    """The feature pyramid, and box and mask heads of their own on it."""
    model = cfg.MODEL
    norm_in_heads = norm if protocol.norm_in_heads else ""
    model.BACKBONE.NAME = "build_resnet_fpn_backbone"
    model.RESNETS.OUT_FEATURES = STAGES
    model.FPN.IN_FEATURES = STAGES
    model.FPN.NORM = norm
    model.ANCHOR_GENERATOR.SIZES = [[size] for size in (32, 64, 128, 256, 512)]  # one per level
    model.RPN.IN_FEATURES = LEVELS
    model.ROI_HEADS.NAME = "StandardROIHeads"
    model.ROI_HEADS.IN_FEATURES = LEVELS[:-1]
    model.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    model.ROI_BOX_HEAD.NUM_CONV, model.ROI_BOX_HEAD.NUM_FC = FPN_BOX_HEADS[protocol.box_head]
    model.ROI_BOX_HEAD.POOLER_RESOLUTION = 7
    model.ROI_BOX_HEAD.NORM = norm_in_heads
    model.ROI_MASK_HEAD.NUM_CONV = 4
    model.ROI_MASK_HEAD.NORM = norm_in_heads


def _set_input(cfg: Any, protocol: DetectionProtocol, spec: InputSpec) -> None:
    """The weights' input convention in Detectron2's units, and the sizes."""
    scale = MAX_PIXEL / spec.max_value
    cfg.MODEL.PIXEL_MEAN = [mean * scale for mean in spec.mean]
    cfg.MODEL.PIXEL_STD = [std * scale for std in spec.std]
    cfg.INPUT.FORMAT = spec.channel_order
    cfg.INPUT.MIN_SIZE_TRAIN = tuple(protocol.train_short_sides)
    cfg.INPUT.MIN_SIZE_TEST = protocol.test_short_side
    cfg.INPUT.MAX_SIZE_TRAIN = cfg.INPUT.MAX_SIZE_TEST = protocol.max_long_side
    if protocol.flip_probability not in FLIPS:
        _refuse("flip_probability 0 or 0.5", protocol.flip_probability, "choose one of them")
    cfg.INPUT.RANDOM_FLIP = FLIPS[protocol.flip_probability]


def _set_solver(cfg: Any, protocol: DetectionProtocol) -> None:
    if protocol.warmup_iterations > protocol.iterations:
        # Detectron2 would squeeze the whole warm-up into the run.
        _refuse(
            f"warmup_iterations of at most the {protocol.iterations} iterations",
            protocol.warmup_iterations,
            "lower --warmup-iterations",
        )
    solver = cfg.SOLVER
    solver.IMS_PER_BATCH = protocol.batch_size
    solver.MAX_ITER = protocol.iterations
    # It has no place for those that training never reaches.
    solver.STEPS = tuple(at for at in protocol.decay_iterations if at < protocol.iterations)
    solver.GAMMA = protocol.decay_factor
    solver.WARMUP_ITERS = protocol.warmup_iterations
    solver.WARMUP_FACTOR = protocol.warmup_factor
    solver.BASE_LR = protocol.learning_rate
    solver.MOMENTUM = protocol.momentum
    solver.WEIGHT_DECAY = protocol.weight_decay
    solver.WEIGHT_DECAY_NORM = protocol.weight_decay_norm
    cfg.TEST.PRECISE_BN.ENABLED = protocol.precise_bn_batches > 0
    cfg.TEST.PRECISE_BN.NUM_ITER = protocol.precise_bn_batches


def _refuse(expected: str, found: object, remedy: str) -> None:
    raise UserError(f"--engine detectron2: expected {expected}, found {found}; {remedy} or use --engine embedded")
