"""Detection protocols: R50-C4 with the extra BN after res5, fine-tuned end to end, for VOC and COCO."""

from dataclasses import dataclass

# MoCo's Base-RCNN-C4-BN.yaml and its per-data-set files; where those are silent, Detectron2 0.6's defaults.
ALL_SHORT_SIDES_VOC = tuple(range(480, 801, 32))
ALL_SHORT_SIDES_COCO = tuple(range(640, 801, 32))


@dataclass(frozen=True)
class DetectionProtocol:
    """Every value that moves a detection number. Lengths in pixels, iterations in optimizer steps."""

    id: str
    expected_images: tuple[tuple[str, int], ...]
    # Data. A split is `YEAR/NAME` below a VOCdevkit, `NAME` in a VOC year folder, or a COCO split name.
    train_splits: tuple[str, ...]
    test_splits: tuple[str, ...]
    classes: str  # "voc": the 20 of PASCAL VOC; "found": those of the training data (COCO: those its json lists)
    metric: str  # "voc-11-point", "voc-area" or "coco"
    # Model
    masks: bool
    model: str = "R50-C4"
    norm: str = "SyncBN"  # statistics over the whole batch; in one process that is plain BN
    extra_norm: bool = True  # MoCo v1, section 4.2: BN after res5
    rois_per_image: int = 512
    rpn_anchors_per_image: int = 256
    rpn_pre_nms_train: int = 12000
    rpn_post_nms_train: int = 2000
    rpn_pre_nms_test: int = 6000
    rpn_post_nms_test: int = 1000
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    detections_per_image: int = 100
    # Input
    train_short_sides: tuple[int, ...] = ALL_SHORT_SIDES_VOC
    test_short_side: int = 800
    max_long_side: int = 1333
    flip_probability: float = 0.5
    # Solver
    batch_size: int = 16
    iterations: int = 24000
    decay_iterations: tuple[int, ...] = (18000, 22000)
    decay_factor: float = 0.1
    warmup_iterations: int = 100
    warmup_factor: float = 0.001
    learning_rate: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 1e-4
    weight_decay_norm: float = 0.0
    precise_bn_batches: int = 200
