"""A pretraining run that was killed, at any step, ends bit for bit as the run that never was."""

import io
import json
import os
import pkgutil
import random
import resource
import signal
from collections.abc import Iterator
from contextlib import redirect_stdout
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import in_processes
from tiny_pretraining import assert_same_state, draw_pictures, load, make_run, make_tiny_encoder, run_tiny

import pretrain.data
import pretrain.step
import pretrain.train
from mocobench.runtime.errors import UserError
from pretrain.images import TrainingImages
from pretrain.interrupts import interrupts_wait
from pretrain.train import pretrain as run_pretraining

EPOCHS, STEPS = 4, 6  # with batches of 4 from 26 pictures
SETTINGS = {"differing": {"epochs": EPOCHS}, "checkpoint_every": 2}
TIMES = ("images_per_second", "data_wait_share", "wall_seconds")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return draw_pictures(tmp_path / "pictures", 26)


@pytest.fixture
def tiny_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pretrain.methods.make_encoder", make_tiny_encoder)


@pytest.fixture
def whole(pictures: Path, tmp_path: Path) -> Path:
    """The folder of a run that was never stopped."""
    out = tmp_path / "whole"
    assert in_processes(1, run_tiny, pictures, out, **SETTINGS) == [(0, "checkpoint_last.pth.tar")]
    return out


def metrics_with_times(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def metrics(out: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl without what the clock says."""
    return [{name: value for name, value in line.items() if name not in TIMES} for line in metrics_with_times(out)]


def assert_same_run(out: Path, whole: Path) -> None:
    last = load(out / "checkpoint_last.pth.tar")
    assert_same_state(last, load(whole / "checkpoint_last.pth.tar"))
    assert_same_state(last, load(out / f"checkpoint_{EPOCHS:04d}.pth.tar"))
    assert last["mocobench"]["progress"]["epoch"] == EPOCHS
    assert metrics(out) == metrics(whole)
    assert [line["epoch"] for line in metrics(out)] == [1, 2, 3, 4]
    assert json.loads((out / "run.json").read_text())["epochs_done"] == EPOCHS
    assert not list(out.glob(".*"))


def test_killed_in_epochs_and_in_the_middle_of_writing(pictures: Path, tmp_path: Path, whole: Path) -> None:
    """Step 2, before any checkpoint; a half written one; the third step of an epoch; in the last epoch."""
    out = tmp_path / "killed"
    reached = []
    for kill, workers in ((("step", 2), 0), (("write", 2), 2), (("step", 8), 0), (("write", 3), 1)):
        answers = in_processes(1, run_tiny, pictures, out, kill=kill, num_workers=workers, **SETTINGS)
        assert answers == [(-signal.SIGKILL, None)]
        last = out / "checkpoint_last.pth.tar"
        progress = load(last)["mocobench"]["progress"] if last.exists() else {"epoch": 0, "step": 0}
        reached.append((progress["epoch"], progress["step"]))
    # each goes on from where the one before had a checkpoint: every 2 steps, 6 to an epoch
    assert reached == [(0, 0), (0, 2), (1, 2), (2, 0)]
    in_processes(1, run_tiny, pictures, out, num_workers=2, **SETTINGS)
    assert_same_run(out, whole)


@pytest.mark.parametrize("count", [1, 2])
def test_a_checkpoint_is_never_older_than_asked(pictures: Path, tmp_path: Path, count: int) -> None:
    """Without a checkpoint by steps: killed before step 4 of the first epoch, a run has the one after step 3."""
    out, settings = tmp_path / "killed", {"checkpoint_every": 1000, "checkpoint_minutes": 1e-9}
    in_processes(count, run_tiny, pictures, out, kill=("step", 4), **settings)
    progress = load(out / "checkpoint_last.pth.tar")["mocobench"]["progress"]
    assert (progress["epoch"], progress["step"]) == (0, 3)


@pytest.mark.parametrize("kills", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_at_random_moments(pictures: Path, tmp_path: Path, whole: Path, kills: int) -> None:
    """With a checkpoint every step, much of the time goes into writing, so that kills fall into that too."""
    out, moments = tmp_path / "killed", random.Random(kills)
    longest = metrics_with_times(whole)[-1]["wall_seconds"] / kills  # so that the run cannot end before the last kill
    for _ in range(kills):
        kill, workers = ("seconds", moments.uniform(0, longest)), moments.choice([0, 1, 2])
        settings = {**SETTINGS, "checkpoint_every": moments.choice([1, 2, 3])}
        answers = in_processes(1, run_tiny, pictures, out, kill=kill, num_workers=workers, **settings)
        assert answers == [(-signal.SIGKILL, None)]
    in_processes(1, run_tiny, pictures, out, **SETTINGS)
    assert_same_run(out, whole)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As the processes of the tests have it: with more, sums come in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("place", "moment", "reached"),
    [
        ("pretrain.step.Trainer.step", 3, (0, 3)),  # in the third step, which is done to its end
        ("pretrain.data.read_image", 10, (0, 2)),  # waiting for the third batch of four images
        ("pretrain.train.Training.save", 1, (0, 2)),  # in the middle of saving after the second step
        ("pretrain.train._monitored", 1, (0, 6)),  # after the last step of an epoch
        ("pretrain.train.write_run_record", 6, (2, 0)),  # at the end of the second epoch, its third save
    ],
)
def test_an_interrupted_run_has_all_it_has_done(
    pictures: Path,
    tmp_path: Path,
    whole: Path,
    tiny_encoder: None,
    heeded: None,
    one_thread: None,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    moment: int,
    reached: tuple[int, int],
) -> None:
    out, calls, original = tmp_path / "interrupted", 0, pkgutil.resolve_name(place)

    def interrupted(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == moment:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(place, interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_pretraining(make_run(pictures, out, **SETTINGS))
    progress = load(out / "checkpoint_last.pth.tar")["mocobench"]["progress"]
    assert (progress["epoch"], progress["step"]) == reached
    in_processes(1, run_tiny, pictures, out, **SETTINGS)
    assert_same_run(out, whole)


def test_a_step_that_is_broken_off_is_not_saved(
    pictures: Path, tmp_path: Path, tiny_encoder: None, heeded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, calls, original = tmp_path / "interrupted", 0, pretrain.step.Trainer.step

    def interrupted_twice(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        values = original(*arguments)
        for _ in range(2 if calls == 4 else 0):
            os.kill(os.getpid(), signal.SIGINT)
        return values

    with monkeypatch.context() as patched:
        patched.setattr("pretrain.step.Trainer.step", interrupted_twice)
        with pytest.raises(KeyboardInterrupt):
            run_pretraining(make_run(pictures, out, **SETTINGS))
    progress = load(out / "checkpoint_last.pth.tar")["mocobench"]["progress"]
    assert (progress["epoch"], progress["step"]) == (0, 2)


def test_a_second_interrupt_does_not_wait(heeded: None) -> None:
    done = []

    def interrupt_twice() -> None:
        with interrupts_wait():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("after the first")
            os.kill(os.getpid(), signal.SIGINT)
            done.append("after the second")

    with pytest.raises(KeyboardInterrupt):
        interrupt_twice()
    assert done == ["after the first"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_sessions_are_recorded_and_what_changed_between_them_is_said(
    pictures: Path, tmp_path: Path, tiny_encoder: None, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for step, workers in ((6, 0), (4, 2)):  # from the start to after step 4, and to the epoch's end
        in_processes(1, run_tiny, pictures, out, kill=("step", step), num_workers=workers, **SETTINGS)
    in_processes(1, run_tiny, pictures, out, kill=("step", 1), **SETTINGS)  # no checkpoint: nothing of it is kept
    sessions = load(out / "checkpoint_last.pth.tar")["mocobench"]["progress"]["sessions"]
    run_pretraining(make_run(pictures, out, precision="bf16", **SETTINGS))
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("changed since: ")]
    assert len(told) == 1
    assert "precision fp32 -> bf16" in told[0]
    assert "num_workers" not in told[0]
    record = json.loads((out / "run.json").read_text())["sessions"]
    assert record[:2] == sessions
    assert [(each["epoch"], each["step"], each["num_workers"]) for each in record] == [(0, 0, 0), (0, 4, 2), (1, 0, 0)]
    assert [each["precision"] for each in record] == ["fp32", "fp32", "bf16"]
    assert {each["packages"]["simplejpeg"] for each in record} == {metadata.version("simplejpeg")}
    assert {each["kernels"] for each in record} == {False}  # without a GPU


def test_a_run_goes_on_without_loading_what_it_has_seen(
    pictures: Path, tmp_path: Path, tiny_encoder: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    in_processes(1, run_tiny, pictures, out, kill=("step", 6), **SETTINGS)  # a checkpoint after step 4
    read: list[int] = []

    def read_image(images: TrainingImages, index: int):
        read.append(index)
        return original(images, index)

    original = pretrain.data.read_image
    monkeypatch.setattr("pretrain.data.read_image", read_image)
    run_pretraining(make_run(pictures, out, **SETTINGS))
    assert len(read) == (EPOCHS * STEPS - 4) * 4


def test_the_previous_checkpoint_serves_when_the_last_is_gone(pictures: Path, tmp_path: Path, whole: Path) -> None:
    """As after a kill between the two renamings."""
    out = tmp_path / "out"
    in_processes(1, run_tiny, pictures, out, kill=("step", 12), **SETTINGS)
    progress = [load(out / f"checkpoint_{name}.pth.tar")["mocobench"]["progress"] for name in ("previous", "last")]
    assert [(each["epoch"], each["step"]) for each in progress] == [(1, 2), (1, 4)]
    (out / "checkpoint_last.pth.tar").unlink()
    in_processes(1, run_tiny, pictures, out, **SETTINGS)
    assert_same_run(out, whole)


def test_a_damaged_checkpoint_points_to_the_previous_one(pictures: Path, tmp_path: Path, whole: Path) -> None:
    out = tmp_path / "out"
    in_processes(1, run_tiny, pictures, out, kill=("step", 12), **SETTINGS)
    last, previous = out / "checkpoint_last.pth.tar", out / "checkpoint_previous.pth.tar"
    os.truncate(last, 1000)
    ((_, said),) = in_processes(1, run_tiny, pictures, out, **SETTINGS)
    assert f"choose --resume {previous}, another --resume or another --out" in said
    # The first save has made the damaged one the previous one when the run is killed; the same command knows better.
    in_processes(1, run_tiny, pictures, out, kill=("write", 2), resume=str(previous), **SETTINGS)
    assert previous.stat().st_size == 1000
    in_processes(1, run_tiny, pictures, out, resume=str(previous), **SETTINGS)
    assert_same_run(out, whole)


def test_a_run_that_torchrun_starts_again_is_its_own(
    pictures: Path, tmp_path: Path, whole: Path, tiny_encoder: None, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--resume never` refuses what another run left, not what this one left when it failed."""
    out = tmp_path / "out"
    in_processes(1, run_tiny, pictures, out, kill=("step", 8), resume="never", **SETTINGS)
    again = make_run(pictures, out, resume="never", **SETTINGS)
    with pytest.raises(UserError, match=r"--resume never: \S+ exists"):
        run_pretraining(again)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    run_pretraining(again)
    assert_same_run(out, whole)


def test_run_json_is_there_from_the_first_checkpoint_on(pictures: Path, tmp_path: Path) -> None:
    in_processes(1, run_tiny, pictures, tmp_path / "out", kill=("step", 4), **SETTINGS)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (record["epochs_done"], record["bad_images"]["count"]) == (0, 0)
    assert len(record["sessions"]) == 1


def test_half_a_line_of_metrics_is_dropped(pictures: Path, tmp_path: Path, whole: Path) -> None:
    """A kill after the line of epoch 2, or within it, but before that epoch's checkpoint."""
    out = tmp_path / "out"
    in_processes(1, run_tiny, pictures, out, kill=("write", 6), **SETTINGS)
    text = (out / "metrics.jsonl").read_text()
    assert text.count("\n") == 2
    (out / "metrics.jsonl").write_text(text[:-20])
    in_processes(1, run_tiny, pictures, out, **SETTINGS)
    assert_same_run(out, whole)


def run_on_a_full_disk(pictures: Path, out: Path, size: int, **settings) -> str:
    """No file may grow past `size` bytes: what the system then says differs from a full disk's in the reason only."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    with redirect_stdout(io.StringIO()):  # which may be a file too
        return run_tiny(pictures, out, **settings)


def test_a_full_disk_leaves_the_checkpoint_before_and_says_so(pictures: Path, tmp_path: Path, whole: Path) -> None:
    out = tmp_path / "out"
    in_processes(1, run_tiny, pictures, out, kill=("step", 6), **SETTINGS)
    before = (out / "checkpoint_last.pth.tar").read_bytes()
    ((_, said),) = in_processes(1, run_on_a_full_disk, pictures, out, len(before) // 2, **SETTINGS)
    assert said == (
        f"UserError: cannot write {out}/checkpoint_last.pth.tar: File too large; checkpoint_last.pth.tar beside it is "
        "whole. Make room, then start the same command again"
    )
    assert (out / "checkpoint_last.pth.tar").read_bytes() == before
    assert not list(out.glob(".*"))
    in_processes(1, run_tiny, pictures, out, **SETTINGS)
    assert_same_run(out, whole)


def test_a_disk_that_is_full_at_an_epochs_end_is_said(pictures: Path, tmp_path: Path, whole: Path) -> None:
    """A line of metrics.jsonl has more than 200 characters; without a checkpoint by steps it is written first."""
    out = tmp_path / "out"
    ((_, said),) = in_processes(1, run_on_a_full_disk, pictures, out, 200, differing={"epochs": EPOCHS})
    message = "File too large; make room, then start the same command again"
    assert said == f"UserError: cannot write {out}/metrics.jsonl: {message}"
    in_processes(1, run_tiny, pictures, out, **SETTINGS)
    assert_same_run(out, whole)


def test_other_images_are_another_run(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    in_processes(1, run_tiny, pictures, out, kill=("step", 6), **SETTINGS)
    (pictures / "train" / "a" / "00.png").unlink()
    ((_, said),) = in_processes(1, run_tiny, pictures, out, **SETTINGS)
    assert "expected a run of the same settings, found data.images 26 there, 25 asked" in said


def test_a_loss_that_is_not_finite_keeps_the_last_good_checkpoint(
    pictures: Path, tmp_path: Path, tiny_encoder: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loss_of_step_10(logits: torch.Tensor) -> torch.Tensor:
        calls.append(len(logits))
        return original(logits) * (float("inf") if len(calls) == 10 else 1)

    original, calls = pretrain.step.contrastive_loss, []
    monkeypatch.setattr(pretrain.step, "contrastive_loss", loss_of_step_10)
    with pytest.raises(UserError, match=r"epoch 2, step 4: expected a finite loss, found inf; lower --learning-rate"):
        run_pretraining(make_run(pictures, tmp_path / "out", **SETTINGS))
    last = load(tmp_path / "out" / "checkpoint_last.pth.tar")
    assert (last["epoch"], last["mocobench"]["progress"]["step"]) == (1, 2)
    assert all(tensor.isfinite().all() for tensor in last["state_dict"].values())


@pytest.mark.parametrize(("step", "place"), [(4, "epoch 1, step 4"), (STEPS, "after epoch 1")])
def test_weights_that_are_not_finite_are_not_saved(
    pictures: Path, tmp_path: Path, tiny_encoder: None, monkeypatch: pytest.MonkeyPatch, step: int, place: str
) -> None:
    """The loss of the step is finite, its update is not."""

    def spoil_at_step(self: torch.optim.SGD, closure: None = None) -> None:
        calls.append(0)
        original(self, closure)
        if len(calls) == step:
            self.param_groups[0]["params"][0].data.mul_(float("nan"))

    original, calls = torch.optim.SGD.step, []
    monkeypatch.setattr(torch.optim.SGD, "step", spoil_at_step)
    with pytest.raises(UserError, match=f"^{place}: expected finite weights, found 1 tensors that are not, enc"):
        run_pretraining(make_run(pictures, tmp_path / "out", **SETTINGS))
    last = load(tmp_path / "out" / "checkpoint_last.pth.tar")
    assert last["mocobench"]["progress"]["step"] == step - 2
