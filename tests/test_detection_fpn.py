"""R50-FPN: its parts against answers derived by hand, and the strict loader of whole detectors."""

import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from benchmarks.detection.embedded.fpn import FPN
from benchmarks.detection.embedded.instances import Targets
from benchmarks.detection.embedded.poolers import assign_levels, pool_regions
from benchmarks.detection.embedded.rcnn import RCNN, build_r50_c4, build_r50_fpn
from benchmarks.detection.embedded.regions import RegionSettings
from benchmarks.detection.embedded.rpn import Level, ProposalNetwork, ProposalSettings
from benchmarks.detection.embedded_model import build_model, load_detector
from benchmarks.detection.protocol import COCO_PROTOCOLS
from mocobench.runtime.errors import UserError
from transfer.network import random_backbone

STRIDES = (4, 8, 16, 32)
SMALL: dict[str, Any] = {
    "stride_in_1x1": False,
    "proposals": ProposalSettings(
        anchors_per_image=32, pre_nms_train=50, post_nms_train=20, pre_nms_test=50, post_nms_test=10
    ),
    "regions": RegionSettings(
        num_classes=3, rois_per_image=16, score_threshold=0.0, nms_threshold=0.5, detections_per_image=5
    ),
}
HEADS: dict[str, dict[str, Any]] = {
    "2fc": {"box_head_convs": 0, "box_head_fcs": 2, "norm_in_heads": False},
    "4conv1fc": {"box_head_convs": 4, "box_head_fcs": 1, "norm_in_heads": True},
}


def squares(sides: list[float]) -> torch.Tensor:
    return torch.tensor([[10.0, 10, 10 + side, 10 + side] for side in sides])


# Pyramid


class Constants(nn.Module):
    """Stands for the ResNet: maps of the right shapes, each filled with one number."""

    channels = (256, 512, 1024, 2048)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        height, width = images.shape[-2:]
        shapes = [(1, c, height // s, width // s) for c, s in zip(self.channels, STRIDES, strict=True)]
        return [torch.full(shape, 10.0**level) for level, shape in enumerate(shapes)]


def plain_fpn() -> FPN:
    """An FPN whose convolutions hand on the mean of the channels."""
    fpn = FPN(stride_in_1x1=False).eval()
    fpn.bottom_up = Constants()  # type: ignore[assignment]
    with torch.no_grad():
        for name, conv in fpn.named_children():
            if isinstance(conv, nn.Conv2d):
                conv.weight.zero_()
                centre = conv.kernel_size[0] // 2
                conv.weight[:, :, centre, centre] = 1 / conv.in_channels
                assert conv.norm is not None, name
                conv.norm.eps = 0.0
    return fpn


def test_each_level_adds_up_all_above_it() -> None:
    with torch.no_grad():
        levels = plain_fpn()(torch.zeros(1, 3, 64, 96))
    # res2 to res5 are filled with 1, 10, 100, 1000.
    expected = {(16, 24): 1111.0, (8, 12): 1110.0, (4, 6): 1100.0, (2, 3): 1000.0, (1, 2): 1000.0}
    assert [tuple(level.shape) for level in levels] == [(1, 256, *size) for size in expected]
    for level, value in zip(levels, expected.values(), strict=True):
        torch.testing.assert_close(level, torch.full_like(level, value))


def test_p6_is_every_second_cell_of_p5() -> None:
    fpn = FPN(stride_in_1x1=False).eval()
    with torch.no_grad():
        *_, p5, p6 = fpn(torch.randn(1, 3, 96, 160))
    assert p5.shape[-2:] == (3, 5)
    assert torch.equal(p6, p5[..., ::2, ::2])


# Pooling


def test_regions_go_to_levels_by_the_side_of_a_square_of_their_area() -> None:
    # 224 is read from P4; half of it from P3, twice from P5. P2 and P5 take what is smaller and larger.
    sides = [0.0, 20, 111, 112, 223, 224, 447, 448, 2000]
    assert assign_levels(squares(sides), strides=STRIDES).tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3]
    long = torch.tensor([[0.0, 0, 448, 112], [0, 0, 56, 224]])
    assert assign_levels(long, strides=STRIDES).tolist() == [2, 1]


def test_pooled_regions_come_in_the_order_of_the_regions() -> None:
    # Level l of image n is filled with 10 n + l.
    maps = [
        torch.stack([torch.full((2, 1024 // s, 1024 // s), 10.0 * n + i) for n in (0, 1)])
        for i, s in enumerate(STRIDES)
    ]
    regions = [squares([500, 30, 300]), squares([120, 600, 40, 250])]
    pooled = pool_regions(maps, regions, strides=STRIDES, size=7)
    assert pooled.shape == (7, 2, 7, 7)
    expected = torch.tensor([3.0, 0, 2, 11, 13, 10, 12])
    torch.testing.assert_close(pooled, expected[:, None, None, None].expand_as(pooled))


def test_pooling_no_regions_gives_no_features() -> None:
    maps = [torch.zeros(2, 8, 64 // s, 64 // s) for s in STRIDES]
    assert pool_regions(maps, [torch.zeros(0, 4)] * 2, strides=STRIDES, size=14).shape == (0, 8, 14, 14)


# Proposals


def proposal_network(*, pre_nms: int, post_nms: int) -> ProposalNetwork:
    return ProposalNetwork(
        channels=4,
        strides=(4, 8),
        anchor_sizes=((32.0,), (64.0,)),
        settings=ProposalSettings(
            anchors_per_image=4,
            pre_nms_train=pre_nms,
            post_nms_train=post_nms,
            pre_nms_test=pre_nms,
            post_nms_test=post_nms,
        ),
    )


def level(boxes: list[list[float]], logits: list[float]) -> Level:
    """Anchors that are proposed as they are."""
    return Level(torch.tensor(boxes), torch.tensor([logits]), torch.zeros(1, len(boxes), 4))


def test_each_level_has_anchors_of_its_own_size_and_stride() -> None:
    network = proposal_network(pre_nms=1, post_nms=1)
    fine, coarse = network([torch.zeros(1, 4, 2, 3), torch.zeros(1, 4, 1, 2)])
    assert fine.anchors.shape == (18, 4)
    assert fine.logits.shape == (1, 18)
    assert coarse.deltas.shape == (1, 6, 4)
    # The square one of three ratios, in the second cell of a row.
    assert fine.anchors[4].tolist() == [-12, -16, 20, 16]
    assert coarse.anchors[4].tolist() == [-24, -32, 40, 32]


def test_every_level_proposes_its_best_and_the_image_keeps_the_best_of_all() -> None:
    near, far = [0.0, 0, 10, 10], [50.0, 50, 60, 60]
    levels = [level([near, far], [0.9, 0.8]), level([[0.0, 50, 10, 60], [50.0, 0, 60, 10]], [0.1, 0.2])]
    (both,) = proposal_network(pre_nms=1, post_nms=5).proposals(levels, [(100, 100)])
    assert both.tolist() == [near, [50, 0, 60, 10]]
    (best,) = proposal_network(pre_nms=2, post_nms=3).proposals(levels, [(100, 100)])
    assert best.tolist() == [near, far, [50, 0, 60, 10]]


def test_suppression_is_within_a_level() -> None:
    box, nearly = [0.0, 0, 10, 10], [0.0, 0, 10, 9]
    network = proposal_network(pre_nms=5, post_nms=5)
    (within,) = network.proposals([level([box, nearly], [0.9, 0.8]), level([[50.0, 50, 60, 60]], [0.5])], [(100, 100)])
    assert within.tolist() == [box, [50, 50, 60, 60]]
    (across,) = network.proposals([level([box], [0.9]), level([nearly], [0.8])], [(100, 100)])
    assert across.tolist() == [box, nearly]


def test_anchors_are_drawn_from_all_levels_together() -> None:
    """Cutting the anchors into levels changes neither the draws nor the losses."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(40, 2, generator=generator) * 60
    anchors = torch.cat((corners, corners + 20), dim=1)
    logits, deltas = torch.randn(2, 40, generator=generator), torch.randn(2, 40, 4, generator=generator)
    targets = [Targets(anchors[3:5] + 1, torch.tensor([0, 1])), Targets(anchors[30:31], torch.tensor([1]))]
    network = proposal_network(pre_nms=5, post_nms=5)
    whole = [Level(anchors, logits, deltas)]
    cut = (anchors.split([25, 15]), logits.split([25, 15], dim=1), deltas.split([25, 15], dim=1))
    parts = [Level(*each) for each in zip(*cut, strict=True)]
    one, two = (network.losses(each, targets, torch.Generator().manual_seed(1)) for each in (whole, parts))
    assert one["loss_rpn_loc"] > 0
    assert one == two


# The whole model


@pytest.mark.parametrize("head", HEADS)
def test_every_weight_is_trained_and_detections_have_masks(head: str) -> None:
    torch.manual_seed(0)
    model = build_r50_fpn(masks=True, **HEADS[head], **SMALL)
    assert model.size_divisibility == 32
    image = torch.randn(1, 3, 64, 96)
    polygon = torch.tensor([8.0, 8, 40, 8, 40, 40, 8, 40], dtype=torch.float64).numpy()
    target = Targets(torch.tensor([[8.0, 8, 40, 40]]), torch.tensor([1]), ([polygon],))
    losses = model(image, [(60, 90)], [target], torch.Generator().manual_seed(0))
    assert set(losses) == {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg", "loss_mask"}
    torch.stack(list(losses.values())).sum().backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []
    (found,) = model.eval().detect(image, [(60, 90)])
    assert len(found.boxes) == 5
    assert found.mask_probabilities is not None
    assert found.mask_probabilities.shape == (5, 28, 28)
    assert (found.boxes[:, 2] <= 90).all()
    assert (found.boxes[:, 3] <= 60).all()


def test_a_backbone_goes_below_the_pyramid_whole() -> None:
    backbone = random_backbone("resnet50", seed=1)
    state = build_model(backbone, COCO_PROTOCOLS["smoke-fpn-2fc"], num_classes=3, seed=0).state_dict()
    assert torch.equal(state["backbone.bottom_up.stem.conv1.weight"], backbone.tensors["conv1.weight"])
    assert torch.equal(state["backbone.bottom_up.res5.2.conv3.weight"], backbone.tensors["layer4.2.conv3.weight"])
    assert "roi_heads.box_head.fc2.weight" in state
    assert "roi_heads.mask_head.mask_fcn4.bias" in state


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "R101-FPN"}, "found model R101-FPN; use R50-C4 or R50-FPN"),
        ({"box_head": "res5"}, "found R50-FPN with box head res5; use 2fc or 4conv1fc"),
        ({"norm": "GN"}, "found norm GN; use SyncBN or BN"),
        ({"extra_norm": True}, "found R50-FPN with extra_norm"),
        ({"model": "R50-C4", "box_head": "res5", "norm_in_heads": True}, "found R50-C4 with norm_in_heads"),
    ],
)
def test_a_model_that_there_is_not_is_refused(changes: dict[str, Any], message: str) -> None:
    protocol = COCO_PROTOCOLS["fpn-2fc"]
    with pytest.raises(UserError, match=f"^protocol {protocol.id}: expected a model that the engines have, {message}"):
        replace(protocol, **changes)


# Whole detectors from files

CLASS_ROWS = "roi_heads.box_predictor.cls_score.weight"
FPN_2FC = {
    **{f"backbone.bottom_up.res4.{block}.conv1.weight": (1,) for block in range(6)},
    "backbone.bottom_up.res4.0.conv1.norm.num_batches_tracked": (),
    "roi_heads.box_head.fc1.weight": (2, 3),
    "roi_heads.box_head.fc2.weight": (2, 2),
    CLASS_ROWS: (21, 2),
}


class Named(nn.Module):
    """Stands for a detector: weights of any names."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            *path, last = name.split(".")
            module: nn.Module = self
            for part in path:
                if part not in dict(module.named_children()):
                    module.add_module(part, nn.Module())
                module = module.get_submodule(part)
            module.register_buffer(last, torch.zeros(shape))


def load(shapes: Mapping[str, tuple[int, ...]], path: Path) -> None:
    load_detector(cast(RCNN, Named(shapes)), path)


def written(shapes: Mapping[str, tuple[int, ...]], path: Path) -> Path:
    torch.save({"model": {name: torch.ones(shape) for name, shape in shapes.items()}, "iteration": 9}, path)
    return path


def without(shapes: Mapping[str, tuple[int, ...]], *names: str) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in shapes.items() if name not in names}


def test_a_detector_is_read_from_tensors_and_from_arrays(tmp_path: Path) -> None:
    counter = "backbone.bottom_up.res4.0.conv1.norm.num_batches_tracked"
    # Detectron2's older files lack BatchNorm's counters and have constants.
    shapes = {**without(FPN_2FC, counter), "pixel_mean": (3, 1, 1)}
    tensors = written(shapes, tmp_path / "model_final.pth")
    arrays = tmp_path / "model_final.pkl"
    weights = {name: torch.ones(shape).numpy() for name, shape in shapes.items()}
    arrays.write_bytes(pickle.dumps({"model": weights, "__author__": "someone"}))
    for path in (tensors, arrays):
        model = Named(FPN_2FC)
        load_detector(cast(RCNN, model), path)
        loaded = {name for name, tensor in model.state_dict().items() if bool((tensor == 1).all())}
        assert loaded == FPN_2FC.keys() - {counter}


def test_weights_of_another_class_count_are_refused(tmp_path: Path) -> None:
    path = written({**FPN_2FC, CLASS_ROWS: (81, 2)}, tmp_path / "coco.pth")
    with pytest.raises(
        UserError, match=f"coco.pth: expected 21 rows in {CLASS_ROWS}, found 81: trained for 80 classes, not 20"
    ):
        load(FPN_2FC, path)


@pytest.mark.parametrize(
    ("shapes", "kind"),
    [
        (
            {**FPN_2FC, **{f"backbone.bottom_up.res4.{b}.conv1.weight": (1,) for b in range(23)}},
            "R101-FPN, box head 2fc",
        ),
        (
            {
                **without(FPN_2FC, "roi_heads.box_head.fc2.weight"),
                **{f"roi_heads.box_head.conv{number}.weight": (1,) for number in range(1, 5)},
                "roi_heads.box_head.conv1.norm.weight": (1,),
            },
            "R50-FPN, box head 4conv1fc, norm in heads, no masks",
        ),
        ({**FPN_2FC, "roi_heads.mask_head.deconv.weight": (1,)}, "R50-FPN, box head 2fc, masks"),
    ],
)
def test_weights_of_another_model_are_refused(shapes: dict[str, Any], kind: str, tmp_path: Path) -> None:
    path = written(shapes, tmp_path / "other.pth")
    expected = "expected the weights of R50-FPN, box head 2fc, no masks, found those of "
    with pytest.raises(UserError, match=rf"other\.pth: {expected}{kind}"):
        load(FPN_2FC, path)


def test_real_models_are_described(tmp_path: Path) -> None:
    path = written(FPN_2FC, tmp_path / "fpn.pth")
    with torch.device("meta"):
        c4 = build_r50_c4(masks=True, extra_norm=True, **SMALL)
        fpn = build_r50_fpn(masks=True, **HEADS["4conv1fc"], **SMALL)
    with pytest.raises(UserError, match="expected the weights of R50-C4, box head res5, extra norm, masks, found"):
        load_detector(c4, path)
    with pytest.raises(
        UserError, match="expected the weights of R50-FPN, box head 4conv1fc, norm in heads, masks, found"
    ):
        load_detector(fpn, path)


def test_every_other_difference_is_listed(tmp_path: Path) -> None:
    shapes = {**without(FPN_2FC, "roi_heads.box_head.fc1.weight"), "roi_heads.box_head.fc9.weight": (1,)}
    shapes["backbone.bottom_up.res4.0.conv1.weight"] = (7,)
    path = written(shapes, tmp_path / "broken.pth")
    with pytest.raises(UserError) as caught:
        load(FPN_2FC, path)
    assert str(caught.value) == (
        f"{path}: expected exactly this detector's weights, found missing: roi_heads.box_head.fc1.weight; "
        "unexpected: roi_heads.box_head.fc9.weight; "
        "of another shape: backbone.bottom_up.res4.0.conv1.weight (7,) instead of (1,); name another file"
    )


def test_a_file_without_a_detector_is_refused(tmp_path: Path) -> None:
    backbone = written({"stem.conv1.weight": (1,)}, tmp_path / "backbone.pth")
    with pytest.raises(UserError, match=r"found the weights of a backbone alone; name a model_final\.pth"):
        load(FPN_2FC, backbone)
    torch.save({"state_dict": {}}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="expected a whole detector's weights under the key `model`, found none"):
        load(FPN_2FC, tmp_path / "other.pth")
