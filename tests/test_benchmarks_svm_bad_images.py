"""voc-svm and images that cannot be read: named, or left out, counted and listed, be it the header or the rest."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from processes import in_processes
from test_benchmarks_svm import SMALL
from tiny_classification import run_tiny

from benchmarks.classification.svm import run_svm
from benchmarks.context import RunContext
from benchmarks.result import read_result
from benchmarks.run import load_task
from mocobench.cli import main
from mocobench.runtime.errors import UserError
from transfer.network import random_backbone

CONTEXT = RunContext(seed=0, device=torch.device("cpu"), precision="fp32", num_workers=0)
SKIP = replace(CONTEXT, on_bad_image="skip")
SKIPPED = ("trainval3.jpg: cannot be read", "trainval5.jpg: cannot be read", "test2.jpg: cannot be read")


def cut(voc: Path, name: str) -> None:
    """The header stays whole."""
    path = voc / "JPEGImages" / name
    path.write_bytes(path.read_bytes()[:-400])


@pytest.fixture
def broken(voc: Path) -> Path:
    """One without a header and two that end early."""
    (voc / "JPEGImages" / "trainval3.jpg").write_bytes(b"not an image")
    cut(voc, "trainval5.jpg")
    cut(voc, "test2.jpg")
    return voc


@pytest.fixture
def clean(broken: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without these three."""
    folder = tmp_path_factory.mktemp("clean") / broken.name
    shutil.copytree(broken, folder)
    for split, lacking in (("trainval", ("trainval3", "trainval5")), ("test", ("test2",))):
        path = folder / "ImageSets" / "Main" / f"{split}.txt"
        path.write_text("\n".join(name for name in path.read_text().split() if name not in lacking))
    return folder


def bench(data: Path, results: Path, *flags: str) -> int:
    command = ["bench", "voc-svm", "--protocol", "smoke", "--backbone", "random", "--arch", "resnet18"]
    command += ["--image-size", "32", "--test-resize", "36", "--grid", "1", "--workers", "0", "--device", "cpu"]
    return main([*command, "--data", str(data), "--results", str(results), *flags])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda voc: cut(voc, "trainval5.jpg"), r"trainval5\.jpg: expected .* truncated .* with --on-bad-image skip"),
        (lambda voc: (voc / "JPEGImages" / "test1.jpg").write_bytes(b""), r"test1\.jpg: expected an image, found "),
    ],
)
def test_one_stops_the_run_and_is_named(voc: Path, tmp_path: Path, capsys, spoil, message: str) -> None:
    spoil(voc)
    assert bench(voc, tmp_path / "results") == 2
    assert re.fullmatch(rf"error: .*{message}.*\n", capsys.readouterr().err)
    assert not (tmp_path / "results").exists()


def test_they_are_left_out_and_recorded(broken: Path, tmp_path: Path, capsys) -> None:
    flags = ("--on-bad-image", "skip", "--features", str(tmp_path / "kept"))
    for _ in range(2):  # the second time with the features of the first
        assert bench(broken, tmp_path / "results", *flags) == 0
        assert "images that cannot be read: 3, trainval3.jpg first; they are left out" in capsys.readouterr().out
        (path,) = (tmp_path / "results").iterdir()
        data = read_result(path).data
        assert data.skipped == SKIPPED
        assert {name: (split.images, split.objects) for name, split in data.splits.items()} == {
            "train": (10, 11),
            "test": (5, 6),
        }
        path.unlink()


def test_a_run_is_one_on_data_without_them(broken: Path, clean: Path) -> None:
    backbone = random_backbone("resnet18", 0)
    found, expected = run_svm(backbone, broken, SMALL, SKIP), run_svm(backbone, clean, SMALL, CONTEXT)
    assert found.metrics == expected.metrics
    assert found.details["per_class"] == expected.details["per_class"]
    assert found.details["left_out"] == expected.details["left_out"]
    counts = [
        {name: (split.images, split.objects) for name, split in each.data.splits.items()} for each in (found, expected)
    ]
    assert counts[0] == counts[1]


def test_lists_that_lack_other_images_have_other_hashes(voc: Path) -> None:
    def lists() -> list[str]:
        data = run_svm(random_backbone("resnet18", 0), voc, SMALL, SKIP).data
        return [data.splits[name].list_sha256 for name in ("train", "test")]

    whole = lists()
    cut(voc, "trainval5.jpg")
    lacking_one = lists()
    cut(voc, "trainval4.jpg")
    lacking_two = lists()
    assert len({whole[0], lacking_one[0], lacking_two[0]}) == 3
    assert whole[1] == lacking_one[1] == lacking_two[1]


def test_the_identity_is_known_before_the_run(broken: Path) -> None:
    expected = run_svm(random_backbone("resnet18", 0), broken, SMALL, SKIP).data
    assert load_task("voc-svm").identify(broken, SMALL, SKIP) == expected


def test_too_few_that_can_be_read_are_an_error(voc: Path) -> None:
    for index in range(1, 12):
        cut(voc, f"trainval{index}.jpg")
    with pytest.raises(
        UserError, match="expected a class with 3 positive and as many negative training images and a positive"
    ):
        run_svm(random_backbone("resnet18", 0), voc, SMALL, SKIP)


def test_processes_leave_out_the_same(broken: Path) -> None:
    one, other = in_processes(2, run_tiny, "svm", broken, context={"on_bad_image": "skip"})
    assert one == other
    assert (one[0], one[1].data.skipped) == (0, SKIPPED)
