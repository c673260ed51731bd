"""A folder belongs to one run: another task, engine, backbone or data set is refused before it touches a file there."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import in_processes
from tiny_classification import run_tiny

from benchmarks.classification.protocol import KNN_PROTOCOLS
from benchmarks.context import RunContext
from benchmarks.detection.protocol import VOC_PROTOCOLS
from benchmarks.run_folder import NOTE, claim_folder
from mocobench.cli import main
from mocobench.runtime.distributed import rank
from mocobench.runtime.errors import UserError
from transfer.network import random_backbone

CONTEXT = RunContext(seed=0, device=torch.device("cpu"), precision="fp32", num_workers=0, engine="torch")
KNN = KNN_PROTOCOLS["smoke"]


def bench(task: str, data: Path, tmp_path: Path, *flags: str) -> int:
    command = ["bench", *task.split(), "--protocol", "smoke", "--backbone", "random", "--arch", "resnet18"]
    command += ["--data", str(data), "--out", str(tmp_path / "out"), "--results", str(tmp_path / "results")]
    return main([*command, "--workers", "0", "--device", "cpu", *flags])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def claim(out: Path, *, left: str | None = None, **changes: Any) -> None:
    """Claim a folder for a run of kNN, which leaves a file there."""
    claim_folder(random_backbone("resnet18", 0), KNN, replace(CONTEXT, out=out, **changes))
    if left is not None:
        (out / left).touch()


def test_another_task_is_refused_and_touches_nothing(bright_and_dark: Path, tmp_path: Path, capsys) -> None:
    small = ["--image-size", "32", "--test-resize", "36"]
    assert bench("imagenet-knn", bright_and_dark, tmp_path, "--neighbors", "1", *small) == 0
    before = contents(tmp_path / "out")
    capsys.readouterr()
    for task in ("imagenet-linear", "imagenet-linear --seed 1", "voc-svm", "voc-detection --engine embedded"):
        assert bench(task, tmp_path / "nowhere", tmp_path) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {tmp_path}/out/{NOTE}: expected a run of the same settings, found ")
        assert f"protocol imagenet-knn/smoke@1 there, {task.split()[0]}/smoke@" in line
        assert line.endswith("; use another --out")
    assert contents(tmp_path / "out") == before
    assert bench("imagenet-knn", bright_and_dark, tmp_path, "--neighbors", "1", *small) == 0


def test_the_other_engine_is_refused_and_never_means_neither(tmp_path: Path, capsys) -> None:
    """As where a job goes on at a machine without Detectron2, and `auto` takes the embedded engine."""
    out, none = tmp_path / "out", tmp_path / "nowhere"
    backbone, protocol = random_backbone("resnet18", 0), VOC_PROTOCOLS["smoke"]
    claim_folder(backbone, protocol, replace(CONTEXT, out=out, engine="detectron2"))
    (out / "model_0000999.pth").touch()
    assert bench("voc-detection --engine embedded", none, tmp_path) == 2
    assert (
        f"{NOTE}: expected a run of the same settings, found engine detectron2 there, embedded asked; use another"
        in (capsys.readouterr().err)
    )
    assert bench("voc-detection --engine embedded --resume never", none, tmp_path) == 2
    assert f"--resume never: {out / NOTE} exists; choose another --out or remove that run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"seed": 1}, "seed 0 there, 1 asked"),
        ({"precision": "bf16"}, "precision fp32 there, bf16 asked"),
        ({"detector": Path("/runs/a/model_final.pth")}, "detector None there, /runs/a/model_final.pth asked"),
    ],
)
def test_what_differs_is_named(changes: dict[str, Any], found: str, tmp_path: Path) -> None:
    claim(tmp_path, left="confusion.png")
    claim(tmp_path)
    with pytest.raises(UserError, match=f"{NOTE}: expected a run of the same settings, found {found}; use another"):
        claim(tmp_path, **changes)


def test_a_run_that_left_nothing_is_no_obstacle(tmp_path: Path) -> None:
    """It ran out of memory, say, and is to go on with other settings."""
    claim(tmp_path, left="probe_curve.jsonl")
    claim(tmp_path, seed=1)
    assert json.loads((tmp_path / NOTE).read_text())["seed"] == "1"
    claim(tmp_path, seed=1, resume="never")


def test_a_folder_of_before_there_were_notes_is_left_to_its_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "probe_last.pth").touch()
    claim(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["probe_last.pth"]


@pytest.mark.parametrize("task", ["knn", "lbfgs"])
def test_other_data_is_refused(task: str, bright_and_dark: Path, tmp_path: Path) -> None:
    ((code, _),) = in_processes(1, run_tiny, task, bright_and_dark, tmp_path / "out")
    assert code == 0
    shutil.copy(bright_and_dark / "train/dark/0.png", bright_and_dark / "train/dark/6.png")
    ((_, said),) = in_processes(1, run_tiny, task, bright_and_dark, tmp_path / "out")
    assert "found train list 12 images, " in said


def test_another_list_of_labelled_images_is_refused(bright_and_dark: Path, tmp_path: Path) -> None:
    """As many as half of each class, which was drawn: a split of another name, and nothing else differs."""
    half = {"differing": {"labels": 0.5, "epochs": 1}}
    ((code, _),) = in_processes(1, run_tiny, "semi", bright_and_dark, tmp_path / "out", **half)
    assert code == 0
    names = [f"{name}/{number}.png\n" for name, count in (("dark", 1), ("bright", 5)) for number in range(count)]
    (tmp_path / "labels.txt").write_text("".join(names))
    listed = {"label_list": tmp_path / "labels.txt"}
    for judge in (NOTE, "fine_tuned_last.pth"):
        ((_, said),) = in_processes(1, run_tiny, "semi", bright_and_dark, tmp_path / "out", **half, context=listed)
        assert re.search(
            f"{judge}: .* found listed list unset there, 6 images, .*; labelled list 6 images, .* unset", said
        )
        (tmp_path / "out" / NOTE).unlink(missing_ok=True)


def test_a_setting_that_an_older_version_did_not_have_is_another_run(tmp_path: Path) -> None:
    claim(tmp_path, left="confusion.png")
    noted = json.loads((tmp_path / NOTE).read_text())
    temperature, _ = noted.pop("temperature"), noted.pop("images_per_pass")  # which need not be said
    (tmp_path / NOTE).write_text(json.dumps(noted))
    with pytest.raises(UserError, match=f"found temperature unset there, {temperature} asked; use another"):
        claim(tmp_path)


@pytest.mark.parametrize("content", ["<html>", "7", "\xff"])
def test_a_damaged_note_is_one_line(content: str, tmp_path: Path) -> None:
    claim(tmp_path, left="confusion.png")
    (tmp_path / NOTE).write_text(content, encoding="latin-1")
    with pytest.raises(
        UserError, match=rf"{NOTE}: expected what `mocobench bench` wrote, found \w+; use another --out"
    ):
        claim(tmp_path)


def claim_in_own_folder(out: Path) -> str:
    try:
        claim(out / str(rank()), seed=1)
    except UserError as error:
        return str(error)
    return "went on"


def test_every_process_refuses_what_the_first_one_sees(tmp_path: Path) -> None:
    claim(tmp_path / "0", left="confusion.png")
    for _, answer in in_processes(2, claim_in_own_folder, tmp_path):
        assert "found seed 0 there, 1 asked; processes 1 there, 2 asked; use another --out" in answer
