"""A classification run that was killed, at any step, ends bit for bit as the run that never was."""

import json
import re
import resource
import signal
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import in_processes
from tiny_classification import die_while_writing_features, run_tiny

from benchmarks.run_folder import NOTE

FILES = {"linear": "probe_last.pth", "sweep": "probe_last.pth", "semi": "fine_tuned_last.pth"}
CURVES = {"linear": "probe_curve.jsonl", "sweep": "probe_curve.jsonl", "semi": "fine_tuning_curve.jsonl"}


def call(task: str, data: Path, out: Path, **settings: Any) -> Any:
    ((_, answer),) = in_processes(1, run_tiny, task, data, out, **settings)
    return answer


def kept(task: str, out: Path) -> Any:
    return torch.load(out / FILES[task], weights_only=True)


def leaves(value: Any) -> list[Any]:
    """Every number, text and tensor of a nested state, in order; a tensor as its type and bytes."""
    if isinstance(value, dict):
        return [leaf for name in value for leaf in (name, *leaves(value[name]))]
    if isinstance(value, list | tuple):
        return [leaf for each in value for leaf in leaves(each)]
    return [(str(value.dtype), value.numpy().tobytes()) if isinstance(value, torch.Tensor) else value]


def curve(task: str, out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / CURVES[task]).read_text().splitlines()]


# Before the first checkpoint, within an epoch, at its end; checkpoints are after every two steps and every epoch.
@pytest.mark.parametrize(("task", "step"), [("linear", 1), ("linear", 6), ("sweep", 7), ("semi", 4)])
def test_a_killed_run_ends_as_one_that_was_not(bright_and_dark: Path, tmp_path: Path, task: str, step: int) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    expected = call(task, bright_and_dark, whole)
    ((code, nothing),) = in_processes(1, run_tiny, task, bright_and_dark, out, kill_at=step)
    assert (code, nothing) == (-signal.SIGKILL, None)
    assert (out / FILES[task]).exists() == (step > 1)
    assert asdict(call(task, bright_and_dark, out)) == asdict(expected)
    assert leaves(kept(task, out)) == leaves(kept(task, whole))
    assert curve(task, out) == curve(task, whole)
    assert sorted(path.name for path in out.iterdir() if not path.name.startswith("events")) == sorted(
        [NOTE, "confusion.png", CURVES[task], FILES[task]]
    )


def test_processes_go_on_too(bright_and_dark: Path, tmp_path: Path) -> None:
    expected = in_processes(2, run_tiny, "linear", bright_and_dark, tmp_path / "whole")
    in_processes(2, run_tiny, "linear", bright_and_dark, tmp_path / "out", kill_at=6)
    found = in_processes(2, run_tiny, "linear", bright_and_dark, tmp_path / "out")
    assert [measurement.details for _, measurement in found] == [measurement.details for _, measurement in expected]
    assert leaves(kept("linear", tmp_path / "out")) == leaves(kept("linear", tmp_path / "whole"))


def test_a_finished_run_is_not_trained_again(bright_and_dark: Path, tmp_path: Path) -> None:
    expected = call("linear", bright_and_dark, tmp_path)
    assert asdict(call("linear", bright_and_dark, tmp_path, kill_at=1)) == asdict(expected)


@pytest.mark.parametrize("judge", [NOTE, "probe_last.pth"])
def test_a_run_of_other_settings_is_refused(judge: str, bright_and_dark: Path, tmp_path: Path) -> None:
    """By the note, or by the checkpoint where an older version left none."""
    in_processes(1, run_tiny, "linear", bright_and_dark, tmp_path, kill_at=6)
    if judge != NOTE:
        (tmp_path / NOTE).unlink()
    before = (tmp_path / FILES["linear"]).read_bytes()
    other = call("linear", bright_and_dark, tmp_path, differing={"momentum": 0.8}, context={"seed": 3})
    assert other == (
        f"UserError: {tmp_path}/{judge}: expected a run of the same settings, found seed 0 there, 3 asked; momentum "
        "0.9 there, 0.8 asked; use another --out"
    )
    wider = call("linear", bright_and_dark, tmp_path, arch="resnet50")
    assert f"{judge}: expected a run of the same settings, found arch resnet18 there, resnet50 asked; backbone" in wider
    never = call("linear", bright_and_dark, tmp_path, context={"resume": "never"})
    assert never.startswith(f"UserError: --resume never: {tmp_path}/{judge} exists; choose another --out")
    (bright_and_dark / "train" / "dark" / "0.png").unlink()
    assert "found train list 12 images, " in call("linear", bright_and_dark, tmp_path)
    assert (tmp_path / FILES["linear"]).read_bytes() == before


def test_another_run_is_refused_before_any_image_is_read(bright_and_dark: Path, tmp_path: Path) -> None:
    in_processes(1, run_tiny, "linear", bright_and_dark, tmp_path, kill_at=6)
    for image in (bright_and_dark / "val").rglob("*.png"):
        image.write_bytes(b"unreadable")
    for change in ({"differing": {"momentum": 0.8}}, {"context": {"resume": "never"}}):
        assert NOTE in call("linear", bright_and_dark, tmp_path, **change)


def test_a_damaged_checkpoint_is_one_line(bright_and_dark: Path, tmp_path: Path) -> None:
    (tmp_path / FILES["semi"]).write_bytes(b"PK\x03\x04")
    assert re.match(
        r"UserError: .*fine_tuned_last\.pth: expected what `mocobench bench` wrote, found \w+; use another --out",
        call("semi", bright_and_dark, tmp_path),
    )


def run_on_a_full_disk(task: str, data: Path, out: Path, size: int, **settings: Any) -> Any:
    """No file may grow past `size` bytes: what the system then says differs from a full disk's in the reason only."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    return run_tiny(task, data, out, **settings)


def test_a_full_disk_leaves_the_checkpoint_before(bright_and_dark: Path, tmp_path: Path) -> None:
    in_processes(1, run_tiny, "linear", bright_and_dark, tmp_path, kill_at=6)
    before = (tmp_path / FILES["linear"]).read_bytes()
    ((_, said),) = in_processes(1, run_on_a_full_disk, "linear", bright_and_dark, tmp_path, len(before) // 2)
    assert said == f"UserError: cannot write {tmp_path}/probe_last.pth: File too large"
    assert (tmp_path / FILES["linear"]).read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_a_full_disk_leaves_no_features(bright_and_dark: Path, tmp_path: Path) -> None:
    kept_in = tmp_path / "features"
    arguments = ("knn", bright_and_dark, None, 4096)
    ((_, said),) = in_processes(1, run_on_a_full_disk, *arguments, context={"features": kept_in})
    assert re.fullmatch(rf"UserError: cannot write {kept_in}/features-\w+\.safetensors: File too large", said)
    assert list(kept_in.iterdir()) == []


def test_a_kill_leaves_no_features_that_are_used(bright_and_dark: Path, tmp_path: Path) -> None:
    kept_in = tmp_path / "features"
    ((code, _),) = in_processes(1, die_while_writing_features, bright_and_dark, kept_in)
    assert code == -signal.SIGKILL
    whole = [path for path in kept_in.iterdir() if not path.name.startswith(".")]
    ((_, found),) = in_processes(1, run_tiny, "knn", bright_and_dark, None, context={"features": kept_in})
    ((_, expected),) = in_processes(1, run_tiny, "knn", bright_and_dark)
    assert asdict(found) == asdict(expected)
    assert len(whole) == 1  # the validation features; those of the training images were half written
    assert not list(kept_in.glob(".*"))
