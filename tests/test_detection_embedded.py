"""The embedded R50-C4: its parts against answers derived by hand, and the whole on a handful of small pictures."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.context import RunContext
from benchmarks.detection.embedded import boxes as box_ops
from benchmarks.detection.embedded.anchors import cell_anchors, grid_anchors
from benchmarks.detection.embedded.heads import BoxPredictor
from benchmarks.detection.embedded.masks import crop_targets, paste, to_rle
from benchmarks.detection.embedded.matching import match, match_best_too, sample
from benchmarks.detection.embedded.precise_bn import set_precise_statistics
from benchmarks.detection.embedded.solver import build_optimizer, learning_rate_factor
from benchmarks.detection.embedded_detection import detect
from benchmarks.detection.embedded_model import build_model, load_backbone_weights
from benchmarks.detection.embedded_training import TrainedDetector, fine_tune
from benchmarks.detection.protocol import DetectionProtocol
from benchmarks.detection.records import DetectionSet, LabelledImage
from mocobench.runtime.device import choose_precision
from mocobench.runtime.errors import UserError
from transfer.network import random_backbone

PROTOCOL = DetectionProtocol(
    id="coco-detection/test@1",
    expected_images=(),
    train_splits=("train",),
    test_splits=("test",),
    classes="found",
    metric="coco",
    masks=True,
    rois_per_image=8,
    rpn_anchors_per_image=32,
    rpn_pre_nms_train=200,
    rpn_post_nms_train=30,
    rpn_pre_nms_test=200,
    rpn_post_nms_test=20,
    train_short_sides=(64,),
    test_short_side=64,
    max_long_side=128,
    batch_size=2,
    iterations=10,
    decay_iterations=(),
    warmup_iterations=2,
    learning_rate=0.01,
    precise_bn_batches=2,
)
CONTEXT = RunContext(seed=0, device=torch.device("cpu"), precision="fp32", num_workers=0)


def record(path: Path, *, width: int = 40, height: int = 30, **changes: Any) -> LabelledImage:
    """An image with one object, the box (10, 5, 20, 25), drawn nowhere."""
    fields: dict[str, Any] = {
        "boxes": np.array([[10, 5, 20, 25]], np.float32),
        "labels": np.array([0]),
        "difficult": np.array([False]),
        "crowd": np.array([False]),
        "segmentations": ([[10.0, 5, 20, 5, 20, 25, 10, 25]],),
    }
    return LabelledImage(path.stem, path, width, height, **{**fields, **changes})


# Boxes, anchors, matching


def test_anchors_of_one_cell_keep_their_area_and_ratio() -> None:
    # Area 32 * 32; height / width 1 and 1/4: 32 x 32 and 64 x 16.
    expected = torch.tensor([[-16.0, -16, 16, 16], [-32, -8, 32, 8]])
    torch.testing.assert_close(cell_anchors(sizes=(32.0,), ratios=(1.0, 0.25)), expected)


def test_grid_anchors_go_row_by_row_with_the_cells_own_anchors_innermost() -> None:
    cell = torch.tensor([[-1.0, -1, 1, 1], [-2, -2, 2, 2]])
    grid = grid_anchors(cell, height=2, width=3, stride=16)
    assert grid.shape == (12, 4)
    assert grid[2].tolist() == [15, -1, 17, 1]  # one cell to the right
    assert grid[7].tolist() == [-2, 14, 2, 18]  # first cell of the second row, second anchor


def test_overlap_of_two_boxes() -> None:
    boxes = torch.tensor([[0.0, 0, 2, 2]])
    others = torch.tensor([[1.0, 0, 3, 2], [0, 0, 2, 2], [5, 5, 6, 6]])
    torch.testing.assert_close(box_ops.pairwise_iou(boxes, others), torch.tensor([[1 / 3, 1.0, 0.0]]))


def test_a_delta_by_hand() -> None:
    # From a 10 x 10 box to one twice as wide whose centre is 5 to the right.
    delta = box_ops.encode(torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 20, 10]]), (10.0, 10.0, 5.0, 5.0))
    torch.testing.assert_close(delta, torch.tensor([[5.0, 0.0, 5 * np.log(2), 0.0]], dtype=torch.float32))


def test_decoding_undoes_encoding() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(2, 50, 2, generator=generator) * 100
    sizes = torch.rand(2, 50, 2, generator=generator) * 50 + 1
    boxes, targets = torch.cat((corners, corners + sizes), dim=2)
    weights = (10.0, 10.0, 5.0, 5.0)
    torch.testing.assert_close(box_ops.decode(box_ops.encode(boxes, targets, weights), boxes, weights), targets)


def test_a_box_grows_no_further_than_1000_sixteenths() -> None:
    box = box_ops.decode(torch.tensor([[0.0, 0, 100, 0]]), torch.tensor([[0.0, 0, 16, 16]]), (1.0, 1.0, 1.0, 1.0))
    assert (box[0, 2] - box[0, 0]).item() == pytest.approx(1000, rel=1e-5)


def test_matching_by_hand() -> None:
    iou = torch.tensor([[0.8, 0.5, 0.1, 0.0], [0.2, 0.4, 0.25, 0.0]])
    objects, labels = match(iou, background_below=0.3, foreground_from=0.7)
    assert objects.tolist() == [0, 0, 1, 0]
    assert labels.tolist() == [1, -1, 0, 0]
    # The second object's best candidate is the second; it becomes foreground but still belongs to the first object.
    assert match_best_too(iou, labels).tolist() == [1, 1, 0, 0]


def test_without_objects_everything_is_background() -> None:
    objects, labels = match(torch.zeros(0, 3), background_below=0.3, foreground_from=0.7)
    assert objects.tolist() == labels.tolist() == [0, 0, 0]


def test_a_sample_fills_up_with_background() -> None:
    labels = torch.tensor([1, 0, -1, 0, 0, 1, 1])
    generator = torch.Generator().manual_seed(0)
    foreground, background = sample(labels, count=4, foreground_fraction=0.5, background=0, generator=generator)
    assert len(foreground) == 2
    assert len(background) == 2
    assert set(foreground.tolist()) <= {0, 5, 6}
    assert set(background.tolist()) <= {1, 3, 4}
    few, rest = sample(labels[:4], count=8, foreground_fraction=0.5, background=0, generator=generator)
    assert few.tolist() == [0]
    assert sorted(rest.tolist()) == [1, 3]


# Masks


def test_a_polygon_fills_the_half_of_the_box_that_it_covers() -> None:
    left_half = [np.array([10.0, 10, 24, 10, 24, 38, 10, 38])]
    crop = crop_targets([left_half], torch.tensor([[10.0, 10, 38, 38]]), size=14)
    assert crop.shape == (1, 14, 14)
    assert crop[0, :, :7].all()
    assert not crop[0, :, 7:].any()


def test_a_bitmask_gives_the_crop_of_its_polygon() -> None:
    bitmask = torch.zeros(50, 50, dtype=torch.bool)
    bitmask[10:38, 10:24] = True
    polygon = [np.array([10.0, 10, 24, 10, 24, 38, 10, 38])]
    box = torch.tensor([[10.0, 10, 38, 38]])
    assert torch.equal(crop_targets([bitmask], box, size=14), crop_targets([polygon], box, size=14))


def test_a_pasted_mask_covers_its_box_and_nothing_else() -> None:
    pasted = paste(torch.ones(14, 14), torch.tensor([4.0, 2, 12, 8]), height=10, width=14)
    expected = torch.zeros(10, 14, dtype=torch.bool)
    expected[2:8, 4:12] = True
    assert torch.equal(pasted, expected)
    assert to_rle(pasted)["size"] == [10, 14]


def test_a_mask_over_the_border_is_cut_off() -> None:
    pasted = paste(torch.ones(14, 14), torch.tensor([-4.0, -4, 4, 4]), height=6, width=6)
    assert pasted.sum() == 16
    assert pasted[:4, :4].all()


# Solver and PreciseBN


def test_the_learning_rate_warms_up_in_a_line_and_steps_down() -> None:
    def factor(iteration: int) -> float:
        return learning_rate_factor(
            iteration, decay_iterations=(10, 20), decay_factor=0.1, warmup_iterations=4, warmup_factor=0.2
        )

    assert [factor(i) for i in (0, 1, 2, 4, 9)] == pytest.approx([0.2, 0.4, 0.6, 1.0, 1.0])
    assert [factor(i) for i in (10, 19, 20)] == pytest.approx([0.1, 0.1, 0.01])


def test_norms_have_a_weight_decay_of_their_own() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))
    optimizer = build_optimizer(model, learning_rate=1.0, momentum=0.9, weight_decay=0.5, weight_decay_norm=0.0)
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert [decays[id(p)] for p in model.parameters()] == [0.5, 0.5, 0.0, 0.0]


def test_precise_statistics_are_those_of_all_batches_together() -> None:
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(n, 3, 2, 2, generator=generator) + n for n in (2, 5)]
    norm = torch.nn.BatchNorm2d(3)
    set_precise_statistics(norm, [lambda b=b: norm(b) for b in batches])
    values = torch.cat(batches).transpose(0, 1).flatten(1)
    torch.testing.assert_close(norm.running_mean, values.mean(dim=1))
    torch.testing.assert_close(norm.running_var, values.var(dim=1, unbiased=False))
    assert norm.momentum == 0.1


# The whole


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> DetectionSet:
    """Two dim noisy images, each with one bright square."""
    folder = tmp_path_factory.mktemp("squares")
    images = []
    for number, (x, y) in enumerate([(10, 12), (40, 20)]):
        pixels = np.random.default_rng(number).integers(0, 60, (64, 96, 3), dtype=np.uint8)
        pixels[y : y + 32, x : x + 32] = (220, 40, 40)
        path = folder / f"{number}.png"
        Image.fromarray(pixels).save(path)
        corners = [x, y, x + 32, y, x + 32, y + 32, x, y + 32]
        box = np.array([[x, y, x + 32, y + 32]], np.float32)
        images.append(record(path, width=96, height=64, boxes=box, segmentations=([corners],)))
    return DetectionSet(tuple(images), ("square",))


def test_a_backbone_goes_to_its_place_whole() -> None:
    backbone = random_backbone("resnet50", seed=1)
    model = build_model(backbone, PROTOCOL, num_classes=3, seed=0)
    state = model.state_dict()
    assert torch.equal(state["backbone.stem.conv1.weight"], backbone.tensors["conv1.weight"])
    assert torch.equal(state["backbone.res2.0.shortcut.norm.weight"], backbone.tensors["layer1.0.downsample.1.weight"])
    assert torch.equal(state["roi_heads.res5.2.conv3.weight"], backbone.tensors["layer4.2.conv3.weight"])
    backbone.tensors.pop("layer3.0.conv1.weight")
    with pytest.raises(AssertionError):
        load_backbone_weights(model, backbone)


def test_a_smaller_backbone_is_refused() -> None:
    with pytest.raises(UserError, match="expected a resnet50 for R50-C4, found a resnet18"):
        build_model(random_backbone("resnet18", seed=0), PROTOCOL, num_classes=1, seed=0)


def test_an_image_without_a_region_has_no_classes_and_no_deltas() -> None:
    logits, deltas = BoxPredictor(in_channels=5, num_classes=3)(torch.zeros(0, 5))
    assert (logits.shape, deltas.shape) == ((0, 4), (0, 3, 4))


def test_a_loss_that_is_not_finite_names_iteration_and_images(squares: DetectionSet) -> None:
    protocol = replace(PROTOCOL, learning_rate=1e30, warmup_iterations=0)
    with pytest.raises(UserError, match=r"iteration 2, images [01], [01]: expected finite losses"):
        fine_tune(random_backbone("resnet50", seed=0), squares, protocol, CONTEXT)


def test_fine_tuning_repeats_itself(squares: DetectionSet) -> None:
    backbone = random_backbone("resnet50", seed=0)
    protocol = replace(PROTOCOL, iterations=2, precise_bn_batches=1)
    first, second = (fine_tune(backbone, squares, protocol, CONTEXT) for _ in range(2))
    assert first.curve == second.curve
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name


@pytest.mark.slow
def test_fine_tuning_lowers_the_loss_and_finds_the_square(squares: DetectionSet, tmp_path: Path) -> None:
    """From a random backbone one image is learned by heart: the best detection is its square.

    Only the classification losses can be compared along the way: box and mask losses count foreground regions, and
    those grow in number as the proposals get better.
    """
    one = DetectionSet(squares.images[1:], squares.classes)
    protocol = replace(
        PROTOCOL, batch_size=1, iterations=60, decay_iterations=(45,), learning_rate=0.005, flip_probability=0.0
    )
    context = replace(CONTEXT, precision=choose_precision("auto", CONTEXT.device), out=tmp_path)
    trained = fine_tune(random_backbone("resnet50", seed=0), one, protocol, context)
    assert [point["iteration"] for point in trained.curve] == [20, 40, 60]
    for name in ("loss_rpn_cls", "loss_cls"):
        assert trained.curve[-1][name] < 0.6 * trained.curve[0][name], name
    check_files(trained, tmp_path)
    (found,) = detect(trained, one, protocol, context)
    assert found.image_id == one.images[0].image_id
    assert found.scores[0] > 0.5
    truth, best = torch.from_numpy(one.images[0].boxes), torch.from_numpy(found.boxes[:1])
    assert box_ops.pairwise_iou(truth, best).item() > 0.5
    assert (np.diff(found.scores) <= 0).all()
    assert found.masks is not None
    assert len(found.masks) == len(found.boxes)


def check_files(trained: TrainedDetector, out: Path) -> None:
    """The files hold the model and the curve that were returned."""
    written = torch.load(out / "model_final.pth", weights_only=True)["model"]
    for name, tensor in trained.model.state_dict().items():
        assert torch.equal(written[name], tensor), name
    lines = (out / "detector_curve.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == list(trained.curve)
    names = {path.name for path in out.iterdir() if not path.name.startswith("events.out.tfevents.")}
    assert names == {"detector_curve.jsonl", "model_final.pth"}
