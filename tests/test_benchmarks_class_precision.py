"""Average precision by class: the hardest by hand, in words, and as a picture."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks.classification.class_precision import draw_precision, hardest_classes, in_words, precision_details
from benchmarks.classification.svm import run_svm
from benchmarks.context import RunContext
from mocobench.runtime.errors import UserError
from transfer.network import random_backbone

CONTEXT = RunContext(seed=0, device=torch.device("cpu"), precision="fp32", num_workers=0)
PER_CLASS = {
    "boat": {"ap": 60.0, "cost": 1.0, "test_images": 6, "test_percent": 12.0},
    "cat": {"ap": 20.25, "cost": 1.0, "test_images": 3, "test_percent": 6.0},
    "dog": {"ap": 20.25, "cost": 0.1, "test_images": 25, "test_percent": 50.0},
}


def test_the_hardest_classes_by_hand() -> None:
    cat, dog, boat = hardest_classes(PER_CLASS)
    assert cat == {"class": "cat", "ap": 20.25, "test_images": 3, "test_percent": 6.0}
    assert (dog["class"], boat["class"]) == ("dog", "boat")  # of equals in their order
    assert in_words(dog) == "dog AP 20.2, in 50 % of the images"
    assert hardest_classes(PER_CLASS, 1) == [cat]


def test_a_record_keeps_them_and_a_run_says_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    details = precision_details(PER_CLASS, replace(CONTEXT, out=tmp_path / "out"))
    assert details == {"per_class": PER_CLASS, "hardest_classes": hardest_classes(PER_CLASS)}
    assert capsys.readouterr().out.startswith("hardest classes: cat AP 20.2, in 6 % of the images; dog AP 20.2, in 50")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["average_precision.png"]
    assert details == precision_details(PER_CLASS, CONTEXT)


@pytest.mark.parametrize("num_classes", [1, 20, 60])
def test_a_picture_has_a_bar_for_each_class(tmp_path: Path, num_classes: int) -> None:
    per_class = {
        f"class {label}": {"ap": 100.0 * label / num_classes, "test_images": 2, "test_percent": 4.0}
        for label in range(num_classes)
    }
    draw_precision(per_class, tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as picture:
        assert (picture.width, picture.height) == (800, int(100 * (0.28 * num_classes + 1.6)))
        assert len(picture.convert("RGB").getcolors(2**24)) > 20


def test_a_picture_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write .*out/average_precision\.png"):
        precision_details(PER_CLASS, replace(CONTEXT, out=tmp_path / "out"))


def test_the_task_leaves_them(voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from test_benchmarks_svm import SMALL

    details = run_svm(random_backbone("resnet18", 0), voc, SMALL, replace(CONTEXT, out=tmp_path / "out")).details
    assert details["per_class"]["cat"]["test_percent"] == 50.0
    assert [each["class"] for each in details["hardest_classes"]] == ["cat", "dog"]
    assert "hardest classes: cat AP 100.0, in 50 % of the images; dog" in capsys.readouterr().out
    assert (tmp_path / "out" / "average_precision.png").exists()
