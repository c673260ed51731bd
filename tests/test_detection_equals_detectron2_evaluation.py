"""The embedded detectors against the real Detectron2's: proposals and detections of the same weights, real images."""

from pathlib import Path

import numpy as np
import pytest
from detection_examples import Picture, fill_by_formula, real_pictures
from detection_reference import VARIANTS, Detectron2, Embedded, Sizes
from pycocotools import mask as coco_mask

from benchmarks.detection.records import Detections

pytestmark = pytest.mark.detectron2

NUM_CLASSES = 20


def assert_same_answers(ours: Embedded, theirs: Detectron2, pictures: list[Picture], *, more_than: int = 20) -> None:
    """Of all the pictures in one padded batch, and of each alone; more than so many detections each time."""
    for batch in (pictures, *([picture] for picture in pictures)):
        for mine, other in zip(ours.proposals(batch), theirs.proposals(batch), strict=True):
            assert mine.shape == other.shape
            np.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=0, atol=1e-3)
        for mine, other in zip(ours.detections(batch), theirs.detections(batch), strict=True):
            assert_same_detections(mine, other, more_than=more_than)


def assert_same_detections(ours: Detections, theirs: Detections, *, more_than: int) -> None:
    assert ours.labels.tolist() == theirs.labels.tolist()
    assert len(ours.labels) > more_than
    np.testing.assert_allclose(ours.boxes, theirs.boxes, rtol=0, atol=1e-3)
    np.testing.assert_allclose(ours.scores, theirs.scores, rtol=0, atol=1e-5)
    assert (ours.masks is None) == (theirs.masks is None)
    if ours.masks is not None and theirs.masks is not None:
        for mine, other in zip(ours.masks, theirs.masks, strict=True):
            one, two = coco_mask.decode(mine), coco_mask.decode(other)
            # IoU above 0.999, but one pixel may differ where there are less than a thousand.
            assert (one != two).sum() <= max(1, 0.001 * (one | two).sum())
        assert sum(coco_mask.area(mask) > 0 for mask in theirs.masks) > more_than


@pytest.mark.parametrize("name", VARIANTS)
def test_random_weights(shared_data: Path, name: str) -> None:
    pytest.importorskip("detectron2", reason="Detectron2 is not installed")
    variant = VARIANTS[name]
    ours = Embedded(variant, num_classes=NUM_CLASSES, sizes=Sizes())
    theirs = Detectron2(variant, num_classes=NUM_CLASSES, sizes=Sizes())
    masks = variant.protocol.masks
    pictures = real_pictures(shared_data, masks=masks, short_sides=(96, 112, 80), num_pictures=3, num_classes=20)
    assert len({picture.example.pixels.shape for picture in pictures}) == len(pictures)
    fill_by_formula(ours.model, seed=0)
    ours.make_precise([pictures[:2], pictures[1:]])
    theirs.model.load_state_dict(ours.model.state_dict(), strict=True)
    assert_same_answers(ours, theirs, pictures)
