"""Detection protocols: R50-C4 with the extra BN after res5 and R50-FPN, fine-tuned end to end, for VOC and COCO.

Sources: [moco] the detection configurations of the official MoCo code (Base-RCNN-C4-BN.yaml,
pascal_voc_R_50_C4_24k_moco.yaml, coco_R_50_C4_2x_moco.yaml); [d2] Detectron2 0.6's defaults, on which those stand;
[d2-fpn] its Base-RCNN-FPN.yaml; [v1] MoCo v1, arXiv 1911.05722, section 4.2 and appendix; [moco#34] its authors on
their FPN models, issue 34 of the official code: SyncBN in the backbone and the FPN only, heads as in Detectron2;
[pycontrast] R_50_FPN_1x.yaml and its _infomin variant in the official PyContrast code, which is Detectron2's
mask_rcnn_R_50_FPN_3x_syncbn.yaml with a 1x schedule and nothing frozen.
"""

from dataclasses import dataclass, replace

from benchmarks.ranges import (
    require_above_zero,
    require_fraction,
    require_from_zero,
    require_one_of,
    require_rising,
    require_splits,
)
from mocobench.runtime.errors import UserError

# The box heads that a model can have.
BOX_HEADS = {"R50-C4": ("res5",), "R50-FPN": ("2fc", "4conv1fc")}
# What a task's data and evaluators leave to choose from.
CHOICES: dict[str, dict[str, tuple[str, ...]]] = {
    "voc-detection": {"classes": ("voc", "found"), "metric": ("voc-11-point", "voc-area")},
    "coco-detection": {"classes": ("found",), "metric": ("coco",)},
}


@dataclass(frozen=True)
class DetectionProtocol:
    """Every value that moves a detection number. Lengths in pixels, iterations in optimizer steps.

    The task that `id` begins with says which classes and metrics there are, and whether there may be masks.

    Raises on construction:
        UserError: a setting is out of its range, or the model is none that the engines have.
    """

    id: str
    expected_images: tuple[tuple[str, int], ...]
    # Data. A split is `YEAR/NAME` below a VOCdevkit, `NAME` in a VOC year folder, or a COCO split name.
    train_splits: tuple[str, ...]
    test_splits: tuple[str, ...]
    classes: str  # "voc": the 20 of PASCAL VOC; "found": those of the training data (COCO: those its json lists)
    metric: str  # "voc-11-point", "voc-area" or "coco"
    # Model
    masks: bool
    model: str = "R50-C4"  # [moco] or "R50-FPN"
    box_head: str = "res5"  # [moco] on C4; "2fc" or "4conv1fc" on FPN
    norm: str = "SyncBN"  # [moco] in ResNet and FPN; statistics over the whole batch; in one process plain BN
    extra_norm: bool = True  # [v1] C4: BN after res5, in the box head
    norm_in_heads: bool = False  # FPN: a norm after every convolution of the box and mask head
    rois_per_image: int = 512  # [d2]
    rpn_anchors_per_image: int = 256  # [d2]
    rpn_pre_nms_train: int = 12000  # [d2] of each feature map; post-NMS of each image
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

    def __post_init__(self) -> None:
        task = self.id.split("/")[0]
        for name, choices in CHOICES[task].items():
            require_one_of(self, name, choices)
        if self.masks and task == "voc-detection":
            raise UserError("--masks: expected --no-masks on voc-detection, whose objects are boxes alone")
        require_splits(self)
        _check_model(self)
        require_above_zero(self, *(name for name in vars(self) if name.startswith(("rois_", "rpn_"))))
        require_above_zero(self, "detections_per_image", "train_short_sides", "test_short_side", "max_long_side")
        require_above_zero(self, "batch_size", "iterations", "learning_rate")
        require_from_zero(self, "decay_factor", "warmup_iterations", "warmup_factor", "precise_bn_batches")
        require_from_zero(self, "momentum", "weight_decay", "weight_decay_norm")
        require_fraction(self, "score_threshold", "nms_threshold", "flip_probability")
        require_rising(self, "decay_iterations")


def _check_model(protocol: DetectionProtocol) -> None:
    """Refuse an unknown model or norm, a box head of the other model, and a norm where the model has no place."""
    model, found = protocol.model, ""
    if model not in BOX_HEADS:
        found = f"model {model}; use {' or '.join(BOX_HEADS)}"
    elif protocol.box_head not in BOX_HEADS[model]:
        found = f"{model} with box head {protocol.box_head}; use {' or '.join(BOX_HEADS[model])}"
    elif protocol.norm not in ("SyncBN", "BN"):
        found = f"norm {protocol.norm}; use SyncBN or BN"
    elif protocol.extra_norm and model != "R50-C4":
        found = f"{model} with extra_norm, which stands after the res5 of C4's heads; use --no-extra-norm"
    elif protocol.norm_in_heads and model != "R50-FPN":
        found = f"{model} with norm_in_heads, whose heads have no convolutions; use --no-norm-in-heads"
    if found:
        raise UserError(f"protocol {protocol.id}: expected a model that the engines have, found {found}")


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

# Two box heads circulate under the name of R50-FPN; their numbers are not of one kind.
COCO_FPN_2FC_1X = replace(
    COCO_1X,  # [d2-fpn] the same data, images, batch and schedule
    id="coco-detection/fpn-2fc-1x@1",
    model="R50-FPN",
    box_head="2fc",  # [moco#34], [d2-fpn]
    extra_norm=False,  # [moco#34]
    norm_in_heads=False,  # [moco#34]
    rpn_pre_nms_train=2000,  # [d2-fpn]
    rpn_post_nms_train=1000,  # [d2-fpn]
    rpn_pre_nms_test=1000,  # [d2-fpn]
    rpn_post_nms_test=1000,  # [d2-fpn]
)

COCO_FPN_2FC_2X = replace(
    COCO_FPN_2FC_1X,
    id="coco-detection/fpn-2fc-2x@1",
    iterations=COCO_PAPER.iterations,  # [v1] the 2x schedule
    decay_iterations=COCO_PAPER.decay_iterations,
)

COCO_FPN_4CONV1FC_1X = replace(
    COCO_FPN_2FC_1X,
    id="coco-detection/fpn-4conv1fc-1x@1",
    box_head="4conv1fc",  # [pycontrast]
    norm_in_heads=True,  # [pycontrast]
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
        detections_per_image=20,  # each costs a pass through the mask head
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
    "fpn-2fc": COCO_FPN_2FC_1X,
    "fpn-2fc-2x": COCO_FPN_2FC_2X,
    "fpn-4conv1fc": COCO_FPN_4CONV1FC_1X,
    "smoke": smoke(COCO_PAPER, protocol_id="coco-detection/smoke@1", train_split="train2017", test_split="val2017"),
    "smoke-fpn-2fc": smoke(
        COCO_FPN_2FC_1X,
        protocol_id="coco-detection/smoke-fpn-2fc@1",
        train_split="train2017",
        test_split="val2017",
    ),
    "smoke-fpn-4conv1fc": smoke(
        COCO_FPN_4CONV1FC_1X,
        protocol_id="coco-detection/smoke-fpn-4conv1fc@1",
        train_split="train2017",
        test_split="val2017",
    ),
}
