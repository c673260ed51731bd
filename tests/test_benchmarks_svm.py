"""VOC07 classification: presence by hand, any classes, the pooling of the last map, and the task end to end."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import in_processes
from safetensors.torch import load_file
from tiny_classification import run_tiny

from benchmarks.classification.svm import run_svm
from benchmarks.classification.svm_images import ABSENT, DIFFICULT, PRESENT, measurable_classes, presence
from benchmarks.classification.svm_protocol import SVM_PROTOCOLS, SvmProtocol
from benchmarks.context import RunContext
from benchmarks.detection.records import DetectionData, DetectionSet, LabelledImage
from benchmarks.result import DataIdentity
from mocobench.runtime.errors import UserError
from transfer.network import random_backbone

CONTEXT = RunContext(seed=0, device=torch.device("cpu"), precision="fp32", num_workers=0)
SMALL = SvmProtocol(
    id="x",
    expected_images=(),
    train_splits=("trainval",),
    test_splits=("test",),
    image_size=32,
    test_resize=36,
    grid=1,
    costs=(0.1, 10.0),
    shots=(1, 2),
    draws=3,
)
PERFECT = {"map": 100.0, "map_11_point": 100.0, "map_1": 100.0, "map_2": 100.0}


def labelled(objects: Sequence[tuple[int, bool]]) -> LabelledImage:
    labels, difficult = (np.array([pair[at] for pair in objects], dtype=kind) for at, kind in ((0, int), (1, bool)))
    boxes = np.tile(np.float32([0, 0, 8, 8]), (len(objects), 1))
    return LabelledImage("1", Path("1.jpg"), 8, 8, boxes, labels, difficult, np.zeros(len(objects), dtype=bool))


def test_an_image_with_only_difficult_objects_of_a_class_is_difficult() -> None:
    images = (labelled([(0, False), (1, True)]), labelled([(1, True), (1, False)]), labelled([]))
    found = presence(DetectionSet(images, ("a", "b"))).tolist()
    assert found == [[PRESENT, DIFFICULT], [ABSENT, PRESENT], [ABSENT, ABSENT]]


def test_difficult_images_count_as_negative_ones_to_train_on_and_not_as_tested() -> None:
    # Class 0 has three positive images and three whose objects are all difficult; class 1 is difficult in the test.
    train = DetectionSet(tuple(labelled([(0, number >= 3), (1, number < 3)]) for number in range(6)), ("a", "b"))
    test = DetectionSet((labelled([(0, False), (1, True)]),), ("a", "b"))
    sets = DetectionData(train, test, DataIdentity("x", 2, {}))
    assert measurable_classes(sets, SMALL) == [0]


def test_the_task_end_to_end(voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measurement = run_svm(random_backbone("resnet18", 0), voc, SMALL, CONTEXT)
    assert measurement.metrics == PERFECT
    assert measurement.metric_info.keys() == measurement.metrics.keys()
    assert set(measurement.details["per_class"]) == {"cat", "dog"}
    assert measurement.details["per_class"]["cat"]["train_images"] == 6
    assert len(measurement.details["left_out"]) == 18
    assert "left out, with too few positive or negative images: aeroplane, bicycle, bird," in capsys.readouterr().out


def test_processes_share_the_classes(voc: Path) -> None:
    ((_, one),) = in_processes(1, run_tiny, "svm", voc)
    for _, other in in_processes(2, run_tiny, "svm", voc):
        assert other == one
    assert len(one.details["low_shot"]["map_2"]["draws"]) == 3


def test_no_class_with_enough_images_is_an_error(voc: Path) -> None:
    with pytest.raises(
        UserError, match="expected a class with 7 positive and as many negative training images and a positive"
    ):
        run_svm(random_backbone("resnet18", 0), voc, replace(SMALL, folds=7), CONTEXT)


def test_a_class_that_every_training_image_shows_is_left_out(voc: Path) -> None:
    for path in (voc / "Annotations").glob("*.xml"):
        box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
        text = path.read_text().replace("</annotation>", f"<object><name>person</name>{box}</object></annotation>")
        path.write_text(text)
    measurement = run_svm(random_backbone("resnet18", 0), voc, SMALL, CONTEXT)
    assert set(measurement.details["per_class"]) == {"cat", "dog"}
    assert "person" in measurement.details["left_out"]


def test_any_classes_can_be_measured(voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (voc / "Annotations").glob("*.xml"):
        path.write_text(path.read_text().replace("cat", "llama"))
    with pytest.raises(UserError, match="class llama is none of the 20 of PASCAL VOC"):
        run_svm(random_backbone("resnet18", 0), voc, SMALL, CONTEXT)
    assert SVM_PROTOCOLS["smoke"].classes == "found"
    measurement = run_svm(random_backbone("resnet18", 0), voc, replace(SMALL, classes="found"), CONTEXT)
    assert set(measurement.details["per_class"]) == {"dog", "llama"}
    assert measurement.details["left_out"] == ["bird"]
    assert "left out, with too few positive or negative images: bird" in capsys.readouterr().out


@pytest.mark.parametrize(("grid", "feature_size"), [(1, 512), (2, 4 * 512)])
def test_the_last_map_is_pooled_to_the_grid(grid: int, feature_size: int, voc: Path, tmp_path: Path) -> None:
    context = replace(CONTEXT, features=tmp_path / "kept")
    protocol = replace(SMALL, image_size=64, grid=grid)
    assert run_svm(random_backbone("resnet18", 0), voc, protocol, context).metrics == PERFECT
    kept = [load_file(file)["features"].shape for file in (tmp_path / "kept").iterdir()]
    assert sorted(kept) == [(6, feature_size), (12, feature_size)]


def test_images_are_too_small_for_the_grid(voc: Path) -> None:
    message = "--grid 2: expected at most the sides of the network's last map, found 1 x 1 of images of 32 x 32; use a"
    with pytest.raises(UserError, match=message):
        run_svm(random_backbone("resnet18", 0), voc, replace(SMALL, grid=2), CONTEXT)


def test_settings_out_of_range() -> None:
    with pytest.raises(UserError, match="--folds 1: expected at least 2"):
        SvmProtocol(id="x", expected_images=(), folds=1)
    with pytest.raises(UserError, match=r"--costs 0\.1,-1\.0: expected one or more numbers above 0"):
        SvmProtocol(id="x", expected_images=(), costs=(0.1, -1.0))
    assert SVM_PROTOCOLS["paper"].expected_images == (("train", 5011), ("test", 4952))
