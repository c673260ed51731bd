"""Evaluating a trained detector instead of training one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import in_processes
from tiny_detector import CONTEXT, PROTOCOL, run_tiny

from benchmarks.detection.embedded_model import require_trained_from
from benchmarks.detection.engine import check_request
from benchmarks.tasks import coco_detection, voc_detection
from mocobench.runtime.errors import UserError
from transfer.network import random_backbone


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


def test_a_detector_of_another_backbone_is_refused(tmp_path: Path) -> None:
    """It wants its pixels as its own backbone does, and the record would name the wrong one."""
    run(tmp_path / "data", tmp_path / "out", iterations=1, precise_bn_batches=0)
    path = tmp_path / "out/model_final.pth"
    own, other = (random_backbone("resnet18", seed=seed) for seed in (0, 1))
    require_trained_from(own, path)
    with pytest.raises(UserError) as caught:
        require_trained_from(other, path)
    assert str(caught.value) == (
        f"{path}: expected a detector trained from random (digest {other.digest[:12]}), found one trained from another "
        f"backbone (digest {own.digest[:12]}); name that one with --backbone"
    )


@pytest.mark.parametrize(
    ("content", "is_refused"),
    [
        ({"mocobench": {"run": {"backbone": "ab" * 32}}}, True),
        ({"curve": {"run": {"backbone": "ab" * 32}}}, True),  # Detectron2's, as we drive it
        ({"mocobench": {"iteration": 7}}, False),
        ({"iteration": 7}, False),  # Detectron2's alone
    ],
)
def test_only_a_detector_that_names_its_backbone_is_held_to_it(
    content: dict[str, Any], is_refused: bool, tmp_path: Path
) -> None:
    torch.save({"model": {}, **content}, tmp_path / "model_final.pth")
    context = replace(CONTEXT, detector=tmp_path / "model_final.pth")
    backbone = random_backbone("resnet50", seed=0)
    if not is_refused:
        check_request(backbone, PROTOCOL, context)
        return
    with pytest.raises(UserError, match="found one trained from another backbone"):
        check_request(backbone, PROTOCOL, context)


@pytest.mark.parametrize("task", [voc_detection, coco_detection])
@pytest.mark.parametrize(
    ("arch", "changes", "said"),
    [
        ("resnet18", {}, "random: expected a resnet50 for R50-C4, found a resnet18"),
        ("resnet50", {"images_per_pass": 3}, "--images-per-pass 3: expected a divisor of the 4 images of each process"),
        ("resnet50", {"engine": "detectron2", "images_per_pass": 2}, "--engine detectron2: expected one pass for each"),
        ("resnet50", {"engine": "detectron2", "precision": "bf16"}, "--engine detectron2: expected --precision fp32"),
        (
            "resnet50",
            {"detector": Path("model_final.pth")},
            "model_final.pth: expected a checkpoint, found no such fil",
        ),
    ],
)
def test_what_cannot_run_is_refused_before_the_data_is_read(
    task: Any, arch: str, changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"^{said}"):
        task.run(random_backbone(arch, seed=0), tmp_path / "nowhere", PROTOCOL, replace(CONTEXT, **changes))
