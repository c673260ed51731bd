"""Confusions: counted by hand, in words, and as a picture of few classes and of many."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks.classification.confusion import (
    NUM_DRAWN,
    class_details,
    count_confusion,
    draw_confusion,
    drawn_classes,
    in_words,
)
from benchmarks.context import RunContext

CONTEXT = RunContext(seed=0, device=torch.device("cpu"), precision="fp32", num_workers=0)
CLASSES = ("ape", "bee", "cat", "dog")
# Apes: all right. Bees: none of two right, one a cat, one a dog. Cats: one of three right, two are bees. No dogs.
LABELS, PREDICTED = torch.tensor([0, 0, 1, 1, 2, 2, 2]), torch.tensor([0, 0, 2, 3, 1, 2, 1])


def test_counted_by_hand() -> None:
    confusion = count_confusion(PREDICTED, LABELS, CLASSES)
    assert confusion.counts.tolist() == [[2, 0, 0, 0], [0, 0, 1, 1], [0, 2, 1, 0], [0, 0, 0, 0]]


def test_the_hardest_classes_by_hand() -> None:
    bee, cat, ape = count_confusion(PREDICTED, LABELS, CLASSES).hardest()
    assert bee == {"class": "bee", "top1": 0.0, "images": 2, "taken_for": "cat", "taken_for_percent": 50.0}
    assert cat["taken_for"] == "bee"
    assert (cat["top1"], cat["taken_for_percent"]) == (pytest.approx(100 / 3), pytest.approx(200 / 3))
    assert ape == {"class": "ape", "top1": 100.0, "images": 2}
    assert in_words(cat) == "cat 33 % of 3, taken for bee 67 %"
    assert in_words(ape) == "ape 100 % of 2"
    assert [each["class"] for each in count_confusion(PREDICTED, LABELS, CLASSES).hardest(1)] == ["bee"]


def test_a_record_keeps_them_and_a_run_says_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    details = class_details(PREDICTED, LABELS, CLASSES, replace(CONTEXT, out=tmp_path / "out"))
    assert details["per_class"]["cat"] == {"top1": pytest.approx(100 / 3), "images": 3}
    assert [each["class"] for each in details["hardest_classes"]] == ["bee", "cat", "ape"]
    assert capsys.readouterr().out.startswith("hardest classes: bee 0 % of 2, taken for cat 50 %; cat 33 % of 3")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["confusion.png"]
    assert details == class_details(PREDICTED, LABELS, CLASSES, CONTEXT)


@pytest.mark.parametrize("num_classes", [2, 10, 1000])
def test_a_picture_is_drawn_of_few_classes_and_of_many(tmp_path: Path, num_classes: int) -> None:
    labels = torch.arange(3 * num_classes) % num_classes
    predicted = torch.where(torch.arange(len(labels)) < num_classes, labels, (labels + 1) % num_classes)
    confusion = count_confusion(predicted, labels, tuple(f"class {label}" for label in range(num_classes)))
    drawn = drawn_classes(confusion)
    assert len(drawn) == num_classes if num_classes <= NUM_DRAWN else len(drawn) <= NUM_DRAWN
    draw_confusion(confusion, tmp_path / "confusion.png")
    with Image.open(tmp_path / "confusion.png") as picture:
        assert 500 < picture.height < picture.width < 4000
        assert len(picture.convert("RGB").getcolors(2**24)) > 20


def test_of_many_classes_the_hardest_are_drawn_with_what_they_are_taken_for() -> None:
    labels = torch.arange(400) % 200
    predicted = labels.clone()
    predicted[[7, 207, 55]] = torch.tensor([90, 90, 120])  # class 7 always is 90, class 55 once is 120
    drawn = drawn_classes(count_confusion(predicted, labels, tuple(str(label) for label in range(200))))
    assert {7, 90, 55, 120} <= set(drawn)
    assert drawn == sorted(drawn)
