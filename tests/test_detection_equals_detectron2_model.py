"""The embedded detectors against the real Detectron2's: names, shapes, files, first weights, and every number."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from detection_examples import fill_by_formula, picture_by_formula
from detection_reference import (
    VARIANTS,
    Detectron2,
    Embedded,
    Sizes,
    Variant,
    detectron2_config,
    factor_of,
    imagenet_backbone,
)

from benchmarks.detection.embedded.solver import build_optimizer
from benchmarks.detection.embedded_model import build_model, load_detector
from benchmarks.detection.protocol import COCO_1X, COCO_FPN_2FC_2X, COCO_PAPER, VOC_PAPER, DetectionProtocol

pytestmark = pytest.mark.detectron2


@pytest.fixture(autouse=True)
def _needs_detectron2() -> None:
    pytest.importorskip("detectron2", reason="Detectron2 is not installed")


@pytest.fixture(params=VARIANTS)
def engines(request: pytest.FixtureRequest) -> tuple[Embedded, Detectron2]:
    variant = VARIANTS[request.param]
    return (
        Embedded(variant, num_classes=20, sizes=Sizes()),
        Detectron2(variant, num_classes=20, sizes=Sizes()),
    )


def shapes(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def assert_same_state(first: torch.nn.Module, second: torch.nn.Module) -> None:
    other = second.state_dict()
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, other[name]), name


def test_names_and_shapes(engines: tuple[Embedded, Detectron2]) -> None:
    ours, theirs = engines
    assert shapes(ours.model) == shapes(theirs.model)
    if ours.protocol.id == VOC_PAPER.id:
        assert len(shapes(ours.model)) == 333


def test_a_file_of_one_loads_in_the_other(engines: tuple[Embedded, Detectron2], tmp_path: Path) -> None:
    from detectron2.checkpoint import DetectionCheckpointer

    ours, theirs = engines
    fill_by_formula(ours.model, seed=1)
    torch.save({"model": ours.model.state_dict()}, tmp_path / "ours.pth")
    DetectionCheckpointer(theirs.model).load(str(tmp_path / "ours.pth"))
    assert_same_state(ours.model, theirs.model)
    fill_by_formula(theirs.model, seed=2)
    DetectionCheckpointer(theirs.model, str(tmp_path)).save("model_final")
    load_detector(ours.model, tmp_path / "model_final.pth")
    assert_same_state(theirs.model, ours.model)


def test_first_weights_are_of_the_same_distributions(engines: tuple[Embedded, Detectron2]) -> None:
    """Standard deviation and kurtosis (3 for a normal, 1.8 for a uniform distribution) of every layer's weights."""
    ours, theirs = engines
    torch.manual_seed(1)
    again = build_model(imagenet_backbone(), ours.protocol, num_classes=20, seed=1).state_dict()
    expected = theirs.model.state_dict()
    for name, tensor in again.items():
        if tensor.ndim < 2:
            assert torch.equal(tensor, expected[name]), name
            continue
        # Standard errors of the two estimates of a normal distribution; five of them, and two samples.
        slack = 5 * (2 / tensor.numel()) ** 0.5
        assert float(tensor.std() / expected[name].std()) == pytest.approx(1, abs=slack), name
        assert abs(float(tensor.mean() / tensor.std())) < slack, name
        assert kurtosis(tensor) == pytest.approx(kurtosis(expected[name]), abs=7 * slack), name


def kurtosis(tensor: torch.Tensor) -> float:
    return float((tensor**4).mean() / (tensor**2).mean() ** 2)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_protocols_numbers(name: str) -> None:
    """What Detectron2's own configuration file says, which the small sizes of the other tests hide."""
    variant = VARIANTS[name]
    protocol, cfg = variant.protocol, detectron2_config(variant, num_classes=20)
    assert protocol.rois_per_image == cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE
    assert protocol.rpn_anchors_per_image == cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE
    assert protocol.rpn_pre_nms_train == cfg.MODEL.RPN.PRE_NMS_TOPK_TRAIN
    assert protocol.rpn_post_nms_train == cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN
    assert protocol.rpn_pre_nms_test == cfg.MODEL.RPN.PRE_NMS_TOPK_TEST
    assert protocol.rpn_post_nms_test == cfg.MODEL.RPN.POST_NMS_TOPK_TEST
    assert protocol.score_threshold == cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST
    assert protocol.nms_threshold == cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST
    assert protocol.detections_per_image == cfg.TEST.DETECTIONS_PER_IMAGE
    assert protocol.max_long_side == cfg.INPUT.MAX_SIZE_TRAIN == cfg.INPUT.MAX_SIZE_TEST
    assert protocol.test_short_side == cfg.INPUT.MIN_SIZE_TEST
    assert protocol.batch_size == cfg.SOLVER.IMS_PER_BATCH
    assert protocol.learning_rate == cfg.SOLVER.BASE_LR
    assert protocol.momentum == cfg.SOLVER.MOMENTUM
    assert protocol.weight_decay == cfg.SOLVER.WEIGHT_DECAY
    assert protocol.weight_decay_norm == cfg.SOLVER.WEIGHT_DECAY_NORM
    assert protocol.decay_factor == cfg.SOLVER.GAMMA
    assert protocol.warmup_factor == cfg.SOLVER.WARMUP_FACTOR
    assert protocol.precise_bn_batches == cfg.TEST.PRECISE_BN.NUM_ITER


SCHEDULES = {
    "voc-24k": (VOC_PAPER, None),  # MoCo's own file, whose numbers are in the protocol
    "c4-1x": (COCO_1X, "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml"),
    "c4-2x": (COCO_PAPER, None),
    "fpn-1x": (VARIANTS["fpn-2fc-masks"].protocol, "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"),
    "fpn-2x": (COCO_FPN_2FC_2X, None),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_learning_rate_of_every_iteration(name: str) -> None:
    from detectron2 import model_zoo
    from detectron2.solver import build_lr_scheduler

    protocol, config = SCHEDULES[name]
    cfg = model_zoo.get_config(config or "COCO-Detection/faster_rcnn_R_50_C4_1x.yaml")
    if config is None:
        cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = protocol.iterations, protocol.decay_iterations
        cfg.SOLVER.WARMUP_ITERS = protocol.warmup_iterations
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=cfg.SOLVER.BASE_LR)
    schedule = build_lr_scheduler(cfg, optimizer)
    assert schedule._max_iter == protocol.iterations
    factor = factor_of(protocol)
    for iteration in range(protocol.iterations):
        expected = cfg.SOLVER.BASE_LR * schedule._multiplier(iteration / schedule._max_iter)
        assert abs(protocol.learning_rate * factor(iteration) - expected) <= 1e-9 * expected, iteration
        if iteration < 5:
            assert schedule.get_last_lr() == [pytest.approx(expected, rel=1e-12)]
            optimizer.step()
            schedule.step()


@pytest.mark.parametrize("name", ["c4-masks", "fpn-4conv1fc-masks"])
def test_the_optimizer(name: str) -> None:
    """Twenty steps at the protocol's rate and decays with the same made-up gradients lead to the same weights."""
    ours = Embedded(VARIANTS[name], num_classes=20, sizes=Sizes())
    theirs = Detectron2(VARIANTS[name], num_classes=20, sizes=Sizes())
    protocol = replace(ours.protocol, iterations=20, warmup_iterations=6, decay_iterations=(12, 16))
    protocol = replace(protocol, learning_rate=0.1, weight_decay=0.05)  # so that a forgotten decay shows
    assert VARIANTS[name].protocol.weight_decay_norm == 0
    fill_by_formula(ours.model, seed=1)
    theirs.model.load_state_dict(ours.model.state_dict())
    optimizer = build_optimizer(
        ours.model,
        learning_rate=protocol.learning_rate,
        momentum=protocol.momentum,
        weight_decay=protocol.weight_decay,
        weight_decay_norm=protocol.weight_decay_norm,
    )
    schedule: Any = torch.optim.lr_scheduler.LambdaLR(optimizer, factor_of(protocol))
    their_optimizer, their_schedule = their_solver(theirs, protocol)
    parameters = dict(theirs.model.named_parameters())
    first = {name: parameter.detach().clone() for name, parameter in ours.model.named_parameters()}
    for step in range(protocol.iterations):
        for number, (name, parameter) in enumerate(ours.model.named_parameters()):
            parameter.grad = torch.full_like(parameter, 0.01 * ((number + step) % 5 + 1))
            parameters[name].grad = parameter.grad.clone()
        for each in (optimizer, schedule, their_optimizer, their_schedule):
            each.step()
    for name, parameter in ours.model.named_parameters():
        torch.testing.assert_close(parameter, parameters[name], rtol=1e-5, atol=1e-7)
        assert not torch.allclose(parameter, first[name], rtol=1e-3, atol=1e-3), name


def their_solver(theirs: Detectron2, protocol: DetectionProtocol) -> tuple[Any, Any]:
    from detectron2.solver import build_lr_scheduler, build_optimizer

    cfg = theirs.cfg.clone()
    cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY = protocol.learning_rate, protocol.weight_decay
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = protocol.iterations, protocol.decay_iterations
    cfg.SOLVER.WARMUP_ITERS = protocol.warmup_iterations
    optimizer = build_optimizer(cfg, theirs.model)
    return optimizer, build_lr_scheduler(cfg, optimizer)


@pytest.mark.parametrize("name", ["c4-boxes", "fpn-2fc-boxes"])
def test_stride_in_the_1x1(name: str) -> None:
    """The MSRA models' place for the stride: another function of the same weights."""
    variant: Variant = VARIANTS[name]
    ours = build_model(
        replace(imagenet_backbone(), stride_in_1x1=True), variant.protocol, num_classes=20, seed=0
    ).eval()
    theirs = Detectron2(replace(variant, stride_in_1x1=True), num_classes=20, sizes=Sizes())
    theirs.model.load_state_dict(ours.state_dict())
    picture = picture_by_formula(1, height=64, width=96, num_classes=20, masks=False)
    images = picture.example.pixels[None].float() / 255
    with torch.no_grad():
        expected = theirs.model.eval().backbone(images)
        for one, other in zip(ours.backbone(images), expected.values(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(
            ours.backbone(images)[0],
            build_model(imagenet_backbone(), variant.protocol, num_classes=20, seed=0).eval().backbone(images)[0],
            rtol=1e-2,
        )
