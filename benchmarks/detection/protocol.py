"""Detection protocols: R50-C4 with the extra BN after res5, fine-tuned end to end, for VOC and COCO.

Sources: [moco] the detection configurations of the official MoCo code (Base-RCNN-C4-BN.yaml,
pascal_voc_R_50_C4_24k_moco.yaml, coco_R_50_C4_2x_moco.yaml); [d2] Detectron2 0.6's defaults, on which those stand;
[v1] MoCo v1, arXiv 1911.05722, section 4.2 and appendix.
"""

from dataclasses import dataclass, replace


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
    model: str = "R50-C4"  # [moco]
    norm: str = "SyncBN"  # [moco] statistics over the whole batch; in one process that is plain BN
    extra_norm: bool = True  # [v1] BN after res5, in the box head
    rois_per_image: int = 512  # [d2]
    rpn_anchors_per_image: int = 256  # [d2]
    rpn_pre_nms_train: int = 12000  # [d2]
    rpn_post_nms_train: int = 2000  # [d2]
    rpn_pre_nms_test: int = 6000  # [moco]
    rpn_post_nms_test: int = 1000  # [moco]
    score_threshold: float = 0.05  # [d2]
    nms_threshold: float = 0.5  # [d2]
    detections_per_image: int = 100  # [d2]
    # Input
    train_short_sides: tuple[int, ...] = tuple(range(480, 801, 32))  # [moco] VOC
    test_short_side: int = 800  # [moco]
    max_long_side: int = 1333  # [d2]
    flip_probability: float = 0.5  # [d2]
    # Solver
    batch_size: int = 16  # [moco]
    iterations: int = 24000  # [moco] VOC
    decay_iterations: tuple[int, ...] = (18000, 22000)  # [moco] VOC
    decay_factor: float = 0.1  # [d2]
    warmup_iterations: int = 100  # [moco] VOC
    warmup_factor: float = 0.001  # [d2]
    learning_rate: float = 0.02  # [moco]
    momentum: float = 0.9  # [d2]
    weight_decay: float = 1e-4  # [d2]
    weight_decay_norm: float = 0.0  # [d2]
    precise_bn_batches: int = 200  # [moco] switches it on, [d2] says how many


VOC_PAPER = DetectionProtocol(
    id="voc-detection/moco-c4-24k@1",
    # Lists of the PASCAL VOC challenge: VOC2007 trainval 5011 + VOC2012 trainval 11540; VOC2007 test 4952.
    expected_images=(("train", 16551), ("test", 4952)),
    train_splits=("2007/trainval", "2012/trainval"),  # [moco]
    test_splits=("2007/test",),  # [moco]
    classes="voc",
    metric="voc-11-point",  # [d2] for VOC2007
    masks=False,
)

COCO_PAPER = replace(
    VOC_PAPER,
    id="coco-detection/moco-c4-2x@1",
    # The instances lists of COCO 2017. Training drops the images without objects, as [d2] does.
    expected_images=(("train", 118287), ("test", 5000)),
    train_splits=("train2017",),  # [moco]
    test_splits=("val2017",),  # [moco]
    classes="found",
    metric="coco",
    masks=True,  # [moco]
    train_short_sides=tuple(range(640, 801, 32)),  # [moco]
    iterations=180000,  # [moco]
    decay_iterations=(120000, 160000),  # [moco]
    warmup_iterations=1000,  # [d2]
)

COCO_1X = replace(
    COCO_PAPER,
    id="coco-detection/moco-c4-1x@1",
    iterations=90000,  # [v1] "1x" is half of the 2x schedule; Detectron2's model zoo, 1x
    decay_iterations=(60000, 80000),
)


def smoke(paper: DetectionProtocol, *, protocol_id: str, train_split: str, test_split: str) -> DetectionProtocol:
    """The whole chain of `paper` within about a minute on two CPU cores; its numbers compare with nothing else."""
    return replace(
        paper,
        id=protocol_id,
        expected_images=(),
        train_splits=(train_split,),
        test_splits=(test_split,),
        classes="found",
        rois_per_image=16,
        rpn_anchors_per_image=64,
        rpn_pre_nms_train=600,
        rpn_post_nms_train=100,
        rpn_pre_nms_test=300,
        rpn_post_nms_test=20,
        detections_per_image=20,  # each costs a pass through res5 for its mask
        train_short_sides=(128,),
        test_short_side=128,
        max_long_side=256,
        batch_size=2,
        iterations=30,
        decay_iterations=(22, 27),
        warmup_iterations=5,
        learning_rate=0.0025,  # linear rule: 0.02 * 2 / 16
        precise_bn_batches=10,
    )


VOC_PROTOCOLS = {
    "paper": VOC_PAPER,
    "smoke": smoke(VOC_PAPER, protocol_id="voc-detection/smoke@1", train_split="trainval", test_split="test"),
}
COCO_PROTOCOLS = {
    "paper": COCO_PAPER,
    "c4-1x": COCO_1X,
    "smoke": smoke(COCO_PAPER, protocol_id="coco-detection/smoke@1", train_split="train2017", test_split="val2017"),
}
