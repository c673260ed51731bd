"""Evaluating a trained detector instead of training one."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from processes import in_processes
from tiny_detector import run_tiny


def run(*arguments: Any, **keywords: Any) -> Any:
    """A run in a process of its own, in which the tiny model takes the other's place."""
    ((_, answer),) = in_processes(1, run_tiny, *arguments, **keywords)
    return answer


def test_a_trained_detector_finds_what_it_found(tmp_path: Path) -> None:
    trained = run(tmp_path / "data", tmp_path / "out")
    again = run(tmp_path / "data", tmp_path / "again", detector=tmp_path / "out/model_final.pth", seed=7)
    assert trained.curve
    assert again.curve == ()
    assert sum(len(found.scores) for found in trained.detections) > 0
    for one, other in zip(trained.detections, again.detections, strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)
        np.testing.assert_array_equal(one.scores, other.scores)
        assert one.masks == other.masks


def test_another_class_count_is_one_line(tmp_path: Path) -> None:
    run(tmp_path / "data", tmp_path / "out", iterations=1, precise_bn_batches=0)
    path = tmp_path / "out/model_final.pth"
    content = torch.load(path, weights_only=True)
    for name in ("weight", "bias"):
        rows = content["model"][f"roi_heads.box_predictor.cls_score.{name}"]
        content["model"][f"roi_heads.box_predictor.cls_score.{name}"] = torch.cat((rows, rows))
    torch.save(content, path)
    answer = run(tmp_path / "data", None, detector=path)
    assert answer.startswith(f"UserError: {path}: expected 2 rows in roi_heads.box_predictor.cls_score.weight, found 4")
    assert "trained for 3 classes, not 1; name a file trained on these classes" in answer
