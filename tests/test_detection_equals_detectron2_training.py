"""The embedded detectors against the real Detectron2's: losses, gradients, steps, statistics; and what they lead to.

In float32 both keep their tensors channels last, so that sums run in the same order. Against Detectron2 in torch's
usual layout the same losses differ by some 1e-5, which is what Detectron2 differs by from itself: torch's BatchNorm on
the CPU sums less exactly channels last. Gradients and steps are compared in float64, see `in_float64`.
"""

from pathlib import Path

import pytest
import torch
from detection_examples import (
    DECIDED,
    UNDECIDED,
    Picture,
    fill_by_formula,
    forget_background,
    picture_by_formula,
    real_pictures,
    resize_last_layers,
)
from detection_reference import VARIANTS, Detectron2, Embedded, Sizes, Solver, in_float64, train
from test_detection_equals_detectron2_evaluation import assert_same_answers

from benchmarks.detection.embedded_model import load_detector

pytestmark = pytest.mark.detectron2

NUM_CLASSES = 20
SIZES = Sizes(rpn_anchors_per_image=256)  # some of them on each level


def engines(name: str) -> tuple[Embedded, Detectron2]:
    pytest.importorskip("detectron2", reason="Detectron2 is not installed")
    variant = VARIANTS[name]
    ours = Embedded(variant, num_classes=NUM_CLASSES, sizes=SIZES)
    theirs = Detectron2(variant, num_classes=NUM_CLASSES, sizes=SIZES)
    fill_by_formula(ours.model, seed=0, last_layers=UNDECIDED)
    theirs.model.load_state_dict(ours.model.state_dict(), strict=True)
    return ours, theirs


def pairs(data: Path, name: str) -> list[list[Picture]]:
    """Batches of two images of different shapes."""
    masks = VARIANTS[name].protocol.masks
    pictures = real_pictures(data, masks=masks, short_sides=(80, 64, 72), num_pictures=8, num_classes=NUM_CLASSES)
    return [pictures[i : i + 2] for i in range(0, 8, 2)]


@pytest.mark.parametrize("name", VARIANTS)
def test_losses_and_statistics(shared_data: Path, name: str) -> None:
    ours, theirs = engines(name)
    batches = pairs(shared_data, name)
    for batch in batches[:2]:
        expected, found = theirs.losses(batch, seed=5), ours.losses(batch, seed=5)
        assert found.keys() == expected.keys()
        for loss, value in expected.items():
            assert float(found[loss].detach()) == pytest.approx(float(value.detach()), rel=1e-5), loss
    for engine in (ours, theirs):
        engine.make_precise(batches[:2])
    precise = theirs.model.state_dict()
    for tensor, value in ours.model.state_dict().items():
        if "running" in tensor:
            torch.testing.assert_close(value, precise[tensor], rtol=1e-4, atol=1e-5, msg=tensor)


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients(shared_data: Path, name: str) -> None:
    ours, theirs = engines(name)
    batch = pairs(shared_data, name)[0]
    for engine in (ours, theirs):
        in_float64(engine)
        torch.stack(list(engine.losses(batch, seed=6).values())).sum().backward()
    assert_same_gradients(ours.model, theirs.model)


def assert_same_gradients(ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    """The largest difference within 1e-6 of the largest gradient, for each parameter."""
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        gradient, other = parameter.grad, expected[name].grad
        assert gradient is not None
        assert other is not None
        assert other.abs().max() > 0, name
        assert (gradient - other).abs().max() <= 1e-6 * other.abs().max(), name


@pytest.mark.parametrize("name", VARIANTS)
def test_twenty_steps(shared_data: Path, name: str, tmp_path: Path) -> None:
    """Each loss of each step; then the detections of the trained weights, read from the file that Detectron2 wrote."""
    ours, theirs = engines(name)
    from detectron2.checkpoint import DetectionCheckpointer

    batches = pairs(shared_data, name)
    in_float64(ours)
    in_float64(theirs)
    found, expected = (train(engine, batches, Solver()) for engine in (ours, theirs))
    assert len(found) == len(expected) == 20
    for step, (mine, other) in enumerate(zip(found, expected, strict=True)):
        assert mine == pytest.approx(other, rel=1e-5), step
    assert sum(expected[16].values()) < 0.8 * sum(expected[0].values()), "the same batch: nothing was learned"
    resize_last_layers(theirs.model, now=UNDECIDED, then=DECIDED)
    forget_background(theirs.model)
    DetectionCheckpointer(theirs.model.float(), str(tmp_path)).save("model_final")
    ours, theirs = engines(name)
    load_detector(ours.model, tmp_path / "model_final.pth")
    DetectionCheckpointer(theirs.model).load(str(tmp_path / "model_final.pth"))
    assert_same_answers(ours, theirs, [batches[1][0], batches[3][1]], more_than=8)


def test_losses_in_the_usual_layout() -> None:
    """Detectron2 as it runs for everybody else, tensors channels first."""
    ours, theirs = engines("c4-masks")
    theirs.model.to(memory_format=torch.contiguous_format)
    batch = [picture_by_formula(n, height=96, width=128, num_classes=20, masks=True) for n in (1, 2)]
    expected, found = theirs.losses(batch, seed=5), ours.losses(batch, seed=5)
    for loss, value in expected.items():
        assert float(found[loss].detach()) == pytest.approx(float(value.detach()), rel=1e-4), loss
