"""The embedded detectors against values that the real Detectron2 gave (data/make_detection_golden.py).

Both compute in float64, so that the values are the same on any machine. Here they were equal in all the digits that the
file keeps, but for some losses, which are added up in float32.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detection_golden import SHAPES, SOLVER, trace
from detection_reference import VARIANTS, Embedded
from pycocotools import mask as coco_mask

GOLDEN = json.loads((Path(__file__).parent / "data/detection_golden.json").read_text(encoding="utf-8"))


def test_the_file_is_whole() -> None:
    """It says who made it, and holds detections, objects and losses enough to be worth comparing."""
    assert GOLDEN["made_by"].startswith("Detectron2 0.6, torch ")
    assert GOLDEN["variants"].keys() == VARIANTS.keys()
    for name, values in GOLDEN["variants"].items():
        assert [len(each["labels"]) > 20 for each in values["detections"]] == [True, True]
        assert all(len(set(each["labels"])) > 1 for each in values["detections"])
        assert len(values["steps"]) == SOLVER.iterations
        assert all(len(losses) == (5 if name.endswith("masks") else 4) for losses in values["steps"])


@pytest.mark.parametrize("name", VARIANTS)
def test_the_same_as_detectron2_was(name: str) -> None:
    expected, found = GOLDEN["variants"][name], trace(Embedded, name)
    assert found["statistics"] == pytest.approx(expected["statistics"], rel=1e-5)
    for mine, other in zip(found["proposals"], expected["proposals"], strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-4)
    for mine, other, (height, width) in zip(found["detections"], expected["detections"], SHAPES[:2], strict=True):
        assert_same_detections(mine, other, height=height * 3 // 2, width=width * 3 // 2)
    assert found["gradients"] == pytest.approx(expected["gradients"], rel=1e-5)
    for mine, other in zip(found["steps"], expected["steps"], strict=True):
        assert mine == pytest.approx(other, rel=1e-5)


def assert_same_detections(found: dict[str, Any], expected: dict[str, Any], *, height: int, width: int) -> None:
    assert found["labels"] == expected["labels"]
    np.testing.assert_allclose(found["boxes"], expected["boxes"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(found["scores"], expected["scores"], rtol=0, atol=1e-5)
    assert (found["masks"] is None) == (expected["masks"] is None)
    for mine, other in zip(found["masks"] or (), expected["masks"] or (), strict=True):
        one, two = (coco_mask.decode({"size": [height, width], "counts": rle.encode()}) for rle in (mine, other))
        assert (one != two).sum() <= max(1, 0.001 * (one | two).sum())
