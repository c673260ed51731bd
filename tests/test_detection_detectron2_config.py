"""The detectron2 engine's configuration and entries: every setting and every record arrives there."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.detection.detectron2_data import dataset_dicts, mask_format
from benchmarks.detection.detectron2_evaluation import YEARS
from benchmarks.detection.protocol import (
    COCO_FPN_2FC_1X,
    COCO_FPN_4CONV1FC_1X,
    COCO_PAPER,
    VOC_PAPER,
    DetectionProtocol,
)
from benchmarks.detection.records import DetectionSet, LabelledImage
from benchmarks.protocol import IDENTITY_FIELDS
from mocobench.runtime.errors import UserError
from tests.tiny_detectron2 import SPEC, config
from transfer.backbone import InputSpec

pytestmark = pytest.mark.detectron2
pytest.importorskip("detectron2", reason="Detectron2 is not installed")

# A changed value of every setting that the configuration holds; `model` and `box_head` have tests of their own.
CHANGES: dict[str, Any] = {
    "masks": False,
    "norm": "BN",
    "extra_norm": False,
    "rois_per_image": 7,
    "rpn_anchors_per_image": 7,
    "rpn_pre_nms_train": 7,
    "rpn_post_nms_train": 7,
    "rpn_pre_nms_test": 7,
    "rpn_post_nms_test": 7,
    "score_threshold": 0.07,
    "nms_threshold": 0.7,
    "detections_per_image": 7,
    "train_short_sides": (7, 8),
    "test_short_side": 7,
    "max_long_side": 7,
    "flip_probability": 0.0,
    "batch_size": 7,
    "iterations": 7000,
    "decay_iterations": (7,),
    "decay_factor": 0.7,
    "warmup_iterations": 7,
    "warmup_factor": 0.7,
    "learning_rate": 0.7,
    "momentum": 0.7,
    "weight_decay": 0.7,
    "weight_decay_norm": 0.7,
    "precise_bn_batches": 7,
}
# The task reads the data that these name; `metric` also chooses the evaluator.
OF_THE_DATA = {"train_splits", "test_splits", "classes", "metric"}


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_every_setting_reaches_the_configuration(name: str) -> None:
    assert getattr(COCO_PAPER, name) != CHANGES[name]
    assert config(replace(COCO_PAPER, **{name: CHANGES[name]})).dump() != config(COCO_PAPER).dump()


def test_no_setting_is_forgotten() -> None:
    covered = {*CHANGES, *OF_THE_DATA, *IDENTITY_FIELDS, "model", "box_head", "norm_in_heads"}
    assert {field.name for field in fields(DetectionProtocol)} == covered
    two_fc, four_convs = config(COCO_FPN_2FC_1X), config(COCO_FPN_4CONV1FC_1X)
    assert (two_fc.MODEL.ROI_BOX_HEAD.NUM_CONV, two_fc.MODEL.ROI_BOX_HEAD.NUM_FC) == (0, 2)
    assert (four_convs.MODEL.ROI_BOX_HEAD.NUM_CONV, four_convs.MODEL.ROI_BOX_HEAD.NUM_FC) == (4, 1)
    assert (two_fc.MODEL.ROI_BOX_HEAD.NORM, two_fc.MODEL.ROI_MASK_HEAD.NORM, two_fc.MODEL.FPN.NORM) == (
        "",
        "",
        "SyncBN",
    )
    assert four_convs.MODEL.ROI_BOX_HEAD.NORM == four_convs.MODEL.ROI_MASK_HEAD.NORM == "SyncBN"
    assert set(YEARS) | {"coco"} == {"voc-11-point", "voc-area", "coco"}


def test_the_paper_configuration_is_the_authors() -> None:
    """Values of Base-RCNN-C4-BN.yaml, pascal_voc_R_50_C4_24k_moco.yaml and coco_R_50_C4_2x_moco.yaml."""
    moco = InputSpec(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    voc, coco = config(VOC_PAPER, spec=moco), config(COCO_PAPER, spec=moco)
    for cfg in (voc, coco):
        assert cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN"
        assert (cfg.MODEL.RPN.PRE_NMS_TOPK_TEST, cfg.MODEL.RPN.POST_NMS_TOPK_TEST) == (6000, 1000)
        assert (cfg.MODEL.BACKBONE.FREEZE_AT, cfg.TEST.PRECISE_BN.ENABLED) == (0, True)
        assert (cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.BASE_LR) == (16, 0.02)
        assert pytest.approx([123.675, 116.280, 103.530]) == cfg.MODEL.PIXEL_MEAN
        assert pytest.approx([58.395, 57.120, 57.375]) == cfg.MODEL.PIXEL_STD
        assert (cfg.INPUT.FORMAT, cfg.MODEL.RESNETS.STRIDE_IN_1X1) == ("RGB", False)
        assert cfg.INPUT.MIN_SIZE_TEST == 800
    assert (voc.MODEL.MASK_ON, coco.MODEL.MASK_ON) == (False, True)
    assert voc.INPUT.MIN_SIZE_TRAIN == (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
    assert coco.INPUT.MIN_SIZE_TRAIN == (640, 672, 704, 736, 768, 800)
    assert (voc.SOLVER.STEPS, voc.SOLVER.MAX_ITER, voc.SOLVER.WARMUP_ITERS) == ((18000, 22000), 24000, 100)
    assert (coco.SOLVER.STEPS, coco.SOLVER.MAX_ITER) == ((120000, 160000), 180000)


def test_decays_at_the_end_or_later_are_no_steps() -> None:
    changes = {"iterations": 20000, "decay_iterations": (100, 20000, 22000)}
    assert config(replace(VOC_PAPER, **changes)).SOLVER.STEPS == (100,)


def test_the_weights_side_comes_from_the_weights() -> None:
    cfg = config(VOC_PAPER, spec=replace(SPEC, channel_order="BGR", max_value=255.0), stride_in_1x1=True)
    assert cfg.MODEL.PIXEL_MEAN == [0.4, 0.5, 0.6]
    assert (cfg.INPUT.FORMAT, cfg.MODEL.RESNETS.STRIDE_IN_1X1) == ("BGR", True)
    assert pytest.approx([25.5, 51.0, 127.5]) == config(VOC_PAPER).MODEL.PIXEL_STD


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flip_probability": 0.3}, "expected flip_probability 0 or 0.5, found 0.3"),
        ({"iterations": 50}, "expected warmup_iterations of at most the 50 iterations, found 100"),
    ],
)
def test_what_it_cannot_hold_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        config(replace(VOC_PAPER, **changes))


def test_records_become_detectron2s_entries() -> None:
    rle = {"size": [50, 60], "counts": [0, 100, 2900]}
    image = LabelledImage(
        image_id=7,
        path=Path("seven.jpg"),
        width=60,
        height=50,
        boxes=np.array([[1, 2, 30, 40], [0, 0, 60, 50]], dtype=np.float32),
        labels=np.array([2, 0]),
        difficult=np.array([True, False]),
        crowd=np.array([False, True]),
        segmentations=([[1, 2, 30, 2, 30, 40]], rle),
    )
    (entry,) = dataset_dicts(DetectionSet((image,), ("a", "b", "c")))
    assert {entry["file_name"], entry["image_id"], entry["width"], entry["height"]} == {"seven.jpg", 7, 60, 50}
    assert [each["bbox"] for each in entry["annotations"]] == [[1, 2, 30, 40], [0, 0, 60, 50]]
    assert [(each["category_id"], each["iscrowd"]) for each in entry["annotations"]] == [(2, 0), (0, 1)]
    assert isinstance(entry["annotations"][1]["segmentation"]["counts"], bytes)
    assert mask_format(DetectionSet((image,), ("a", "b", "c"))) == "polygon"  # only the crowd has a run-length code
    assert mask_format(DetectionSet((replace(image, crowd=np.array([True, False])),), ("a", "b", "c"))) == "bitmask"
