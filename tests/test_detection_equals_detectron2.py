"""The embedded R50-C4 against the real Detectron2: names, shapes, losses and detections."""

from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.detection.embedded.instances import Targets
from benchmarks.detection.embedded.masks import paste
from benchmarks.detection.embedded.rcnn import RCNN

pytestmark = pytest.mark.detectron2

NUM_CLASSES = 20
SIZES = [(128, 192), (112, 160)]
ANCHORS_PER_IMAGE, ROIS_PER_IMAGE = 256, 24
PRE_NMS, POST_NMS = 1000, 60


def embedded_model(*, masks: bool, stride_in_1x1: bool = False) -> RCNN:
    return RCNN(
        num_classes=NUM_CLASSES,
        masks=masks,
        stride_in_1x1=stride_in_1x1,
        extra_norm=True,
        rois_per_image=ROIS_PER_IMAGE,
        rpn_anchors_per_image=ANCHORS_PER_IMAGE,
        rpn_pre_nms_train=PRE_NMS,
        rpn_post_nms_train=POST_NMS,
        rpn_pre_nms_test=PRE_NMS,
        rpn_post_nms_test=POST_NMS,
        score_threshold=0.05,
        nms_threshold=0.5,
        detections_per_image=100,
    )


def detectron2_model(*, masks: bool, stride_in_1x1: bool = False) -> Any:
    """Detectron2's own R50-C4 with the extra norm put after res5, as MoCo's detection code does."""
    pytest.importorskip("detectron2", reason="Detectron2 is not installed")
    from detectron2 import model_zoo
    from detectron2.modeling import build_model

    cfg = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml")
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.MASK_ON = masks
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = stride_in_1x1
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = NUM_CLASSES
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = ROIS_PER_IMAGE
    cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE = ANCHORS_PER_IMAGE
    cfg.MODEL.RPN.PRE_NMS_TOPK_TRAIN = cfg.MODEL.RPN.PRE_NMS_TOPK_TEST = PRE_NMS
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = cfg.MODEL.RPN.POST_NMS_TOPK_TEST = POST_NMS
    model = build_model(cfg)
    model.roi_heads.res5.add_module("norm", torch.nn.BatchNorm2d(2048))
    return model


@pytest.fixture(params=[False, True], ids=["boxes", "masks"])
def models(request: pytest.FixtureRequest) -> tuple[RCNN, Any]:
    """The embedded model and Detectron2's with the same weights: scores spread out, statistics of real batches."""
    theirs = detectron2_model(masks=request.param)
    torch.manual_seed(0)
    ours = embedded_model(masks=request.param)
    with torch.no_grad():
        ours.roi_heads.box_predictor.cls_score.weight.normal_(std=0.1)
        ours.roi_heads.box_predictor.bbox_pred.weight.normal_(std=0.02)
        ours.proposal_generator.rpn_head.objectness_logits.weight.normal_(std=0.1)
        ours.train()
        for norm in ours.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.momentum = 1.0
        ours(images(), SIZES, targets(masks=request.param))
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


def images() -> torch.Tensor:
    """A batch of two smooth pictures, padded with 0."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(2, 3, 12, 16, generator=generator)
    batch = torch.nn.functional.interpolate(coarse, size=SIZES[0], mode="bicubic")
    batch[1, :, SIZES[1][0] :] = 0
    batch[1, :, :, SIZES[1][1] :] = 0
    return batch


def targets(*, masks: bool) -> list[Targets]:
    boxes = [
        torch.tensor([[20.0, 30, 100, 120], [80, 20, 180, 100], [5, 5, 40, 40]]),
        torch.tensor([[60.0, 20, 150, 110]]),
    ]
    labels = [torch.tensor([3, 7, 19]), torch.tensor([0])]
    polygons = [tuple([diamond(box)] for box in image.tolist()) if masks else None for image in boxes]
    return [Targets(*parts) for parts in zip(boxes, labels, polygons, strict=True)]


def diamond(box: list[float]) -> np.ndarray:
    x1, y1, x2, y2 = box
    return np.array([(x1 + x2) / 2, y1, x2, (y1 + y2) / 2, (x1 + x2) / 2, y2, x1, (y1 + y2) / 2])


def detectron2_inputs(batch: torch.Tensor, goals: list[Targets] | None) -> list[dict[str, Any]]:
    from detectron2.structures import Boxes, Instances, PolygonMasks

    inputs = []
    for image, size in enumerate(SIZES):
        one: dict[str, Any] = {"image": batch[image, :, : size[0], : size[1]], "height": size[0], "width": size[1]}
        if goals is not None:
            one["instances"] = Instances(size, gt_boxes=Boxes(goals[image].boxes), gt_classes=goals[image].labels)
            if goals[image].masks is not None:
                one["instances"].gt_masks = PolygonMasks(list(goals[image].masks))
        inputs.append(one)
    return inputs


@pytest.mark.parametrize("masks", [False, True])
def test_names_and_shapes_are_detectron2s(masks: bool) -> None:
    theirs = {name: tuple(t.shape) for name, t in detectron2_model(masks=masks).state_dict().items()}
    ours = {name: tuple(t.shape) for name, t in embedded_model(masks=masks).state_dict().items()}
    assert ours == theirs
    if not masks:
        assert len(ours) == 333


def test_losses_are_detectron2s_for_the_same_generator_state(models: tuple[RCNN, Any]) -> None:
    from detectron2.utils.events import EventStorage

    ours, theirs = models
    goals = targets(masks=ours.roi_heads.mask_head is not None)
    with torch.no_grad(), EventStorage():
        torch.manual_seed(5)
        expected = theirs.train()(detectron2_inputs(images(), goals))
        torch.manual_seed(5)
        found = ours.train()(images(), SIZES, goals)
        from_generator = ours(images(), SIZES, goals, torch.Generator().manual_seed(5))
    assert set(found) == set(expected)
    for name, loss in expected.items():
        assert float(found[name]) == pytest.approx(float(loss), rel=1e-5), name
        assert float(from_generator[name]) == pytest.approx(float(found[name]), rel=1e-6), name


def test_detections_are_detectron2s(models: tuple[RCNN, Any]) -> None:
    ours, theirs = models
    expected = [each["instances"] for each in theirs.eval()(detectron2_inputs(images(), None))]
    found = ours.eval().detect(images(), SIZES)
    for size, them, us in zip(SIZES, expected, found, strict=True):
        assert len(us.boxes) == len(them) > 20
        torch.testing.assert_close(us.boxes, them.pred_boxes.tensor, rtol=1e-5, atol=1e-3)
        torch.testing.assert_close(us.scores, them.scores, rtol=1e-5, atol=1e-6)
        assert us.labels.tolist() == them.pred_classes.tolist()
        if us.mask_probabilities is not None:
            pasted = [
                paste(probabilities, box, height=size[0], width=size[1])
                for probabilities, box in zip(us.mask_probabilities, us.boxes, strict=True)
            ]
            differing = (torch.stack(pasted) != them.pred_masks).float().mean()
            assert differing < 1e-4


def test_stride_in_the_1x1_is_detectron2s() -> None:
    theirs = detectron2_model(masks=False, stride_in_1x1=True).eval()
    ours = embedded_model(masks=False, stride_in_1x1=True).eval()
    theirs.load_state_dict(ours.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(ours.backbone(images()), theirs.backbone(images())["res4"])
