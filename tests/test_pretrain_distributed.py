"""Pretraining in several real processes over gloo: what one process with as many BN groups computes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from processes import in_processes
from tiny_pretraining import draw_pictures, load, make_run, run_tiny

from mocobench.runtime.distributed import gather_tensors, own_part, rank
from mocobench.runtime.errors import UserError
from pretrain.run import make_plan


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return draw_pictures(tmp_path / "pictures", 26)


def run_in(count: int, data: Path, out: Path, groups: int, **differing) -> dict:
    """The last checkpoint of a run of 21 steps, 3 an epoch; the queue of 21 wraps around within batches of 8."""
    settings = {"epochs": 7, "batch_size": 8, "queue_size": 21, "bn_groups": groups, "learning_rate": 0.3}
    answers = in_processes(count, run_tiny, data, out, differing=settings | differing)
    assert answers == [(0, "checkpoint_last.pth.tar")] * count
    return load(out / "checkpoint_last.pth.tar")


def largest_difference(one: dict, other: dict) -> float:
    """Over weights, running statistics, queue and momentum, in units of 1 + the larger value."""
    assert one["state_dict"].keys() == other["state_dict"].keys()
    assert one["optimizer"]["state"].keys() == other["optimizer"]["state"].keys()
    pairs = [(tensor, other["state_dict"][name]) for name, tensor in one["state_dict"].items()]
    momentum = [checkpoint["optimizer"]["state"] for checkpoint in (one, other)]
    pairs += [(state["momentum_buffer"], momentum[1][key]["momentum_buffer"]) for key, state in momentum[0].items()]
    return max(((a - b).abs() / (1 + a.abs())).max().item() for a, b in pairs)


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("count", [2, 4])
def test_processes_equal_one_process_with_as_many_groups(pictures: Path, tmp_path: Path, count: int) -> None:
    one = run_in(1, pictures, tmp_path / "one", count)
    several = run_in(count, pictures, tmp_path / "several", count)
    assert largest_difference(one, several) < 1e-4
    assert losses(tmp_path / "several") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    assert len(losses(tmp_path / "one")) == 7
    # Not for want of any movement: with other groups the same run ends elsewhere.
    assert largest_difference(one, run_in(1, pictures, tmp_path / "other", 1)) > 0.01


@pytest.mark.parametrize("differing", [{"method": "end-to-end"}, {"symmetric": True}], ids=str)
def test_two_processes_equal_one_whatever_the_method(pictures: Path, tmp_path: Path, differing: dict) -> None:
    one = run_in(1, pictures, tmp_path / "one", 2, **differing)
    assert largest_difference(one, run_in(2, pictures, tmp_path / "two", 2, **differing)) < 1e-4
    assert largest_difference(one, run_in(1, pictures, tmp_path / "other", 1, **differing)) > 0.01


def test_two_processes_share_four_groups(pictures: Path, tmp_path: Path) -> None:
    one = run_in(1, pictures, tmp_path / "one", 4)
    assert largest_difference(one, run_in(2, pictures, tmp_path / "two", 4)) < 1e-4


def test_one_group_is_that_of_all_processes(pictures: Path, tmp_path: Path) -> None:
    one = run_in(1, pictures, tmp_path / "one", 1)
    assert largest_difference(one, run_in(2, pictures, tmp_path / "two", 1)) < 1e-4


def test_plan_refuses_groups_that_the_processes_cannot_share(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("pretrain.run.world_size", lambda: 3)
    with pytest.raises(
        UserError, match=r"--bn-groups 2: expected a multiple of the number of processes, or 1, found 3"
    ):
        make_plan(make_run(tmp_path, tmp_path), num_images=10)


@pytest.mark.parametrize("processes", [3, 8])
def test_plan_refuses_a_batch_that_the_processes_cannot_share(tmp_path: Path, monkeypatch, processes: int) -> None:
    """With one BN group nothing else asks for equal parts: 4 images would be 1 for each of 3, and none of 8."""
    monkeypatch.setattr("pretrain.run.world_size", lambda: processes)
    with pytest.raises(
        UserError, match=rf"--batch-size 4: expected a multiple of the number of processes, found {processes} processes"
    ):
        make_plan(make_run(tmp_path, tmp_path, differing={"bn_groups": 1}), num_images=10)


def gather_own_values() -> list[list[float]]:
    own = torch.tensor([[10.0 * rank()], [10.0 * rank() + 1]])
    together = gather_tensors(own)
    assert torch.equal(own_part(together), own)
    return together.flatten().tolist()


def test_gathered_in_the_order_of_ranks() -> None:
    assert in_processes(3, gather_own_values) == [(0, [0, 1, 10, 11, 20, 21])] * 3


def die_on_rank_1(data: Path, out: Path) -> str:
    """Rank 1 is killed before its second step."""
    return run_tiny(data, out, kill=("step", 2) if rank() == 1 else None)


def test_a_dead_process_ends_the_others_with_a_message(pictures: Path, tmp_path: Path) -> None:
    (_, said), (code, nothing) = in_processes(2, die_on_rank_1, pictures, tmp_path / "out")
    assert (code, nothing) == (-signal.SIGKILL, None)
    assert said.startswith("UserError: process 1 of 2: expected all of them to stay until the end, found that another")


def test_processes_with_different_checkpoints_are_refused(pictures: Path, tmp_path: Path) -> None:
    in_processes(1, run_tiny, pictures, tmp_path / "0")
    answers = in_processes(2, run_in_own_folder, pictures, tmp_path)
    assert [code for code, _ in answers].count(1) == 1
    said = next(answer for _, answer in answers if answer)
    assert "expected the same checkpoint on every process, found epoch 2 step 0, epoch 0 step 0" in said


def run_in_own_folder(data: Path, out: Path) -> str:
    return run_tiny(data, out / str(rank()))


@pytest.mark.slow
def test_torchrun_runs_the_command(pictures: Path, tmp_path: Path) -> None:
    """Two processes of the real command; the pictures are few and small, the network is a ResNet-18."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "mocobench", "pretrain", "--recipe", "demo", "--data", str(pictures), "--out", str(out)]
    command += ["--arch", "resnet18", "--image-size", "32", "--epochs", "1", "--batch-size", "8", "--bn-groups", "2"]
    command += ["--device", "cpu", "--workers", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("wrote ") == 1
    assert "processes      2, 4 images of a batch each" in finished.stdout
    assert "learning_rate: 0.01 -> 0.0025 (scaled linearly with the batch size)" in finished.stdout
    record = json.loads((out / "run.json").read_text())
    assert record["sessions"][-1]["processes"] == record["plan"]["processes"] == 2


@pytest.mark.slow
def test_torchrun_starts_a_group_again_that_lost_a_process(pictures: Path, tmp_path: Path) -> None:
    """Under --max-restarts the run goes on from its last checkpoint and ends as the run that lost nothing."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    in_processes(2, run_tiny, pictures, whole)
    script = tmp_path / "script.py"
    script.write_text(
        f"""import os, sys, torch
from pathlib import Path
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]}
from mocobench.runtime.distributed import process_group
from tiny_pretraining import run_tiny
first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
kill = ("step", 8) if first and os.environ["RANK"] == "1" else None
with process_group(torch.device("cpu")):
    run_tiny(Path({str(pictures)!r}), Path({str(out)!r}), kill=kill)
"""
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command += ["--max-restarts", "1", str(script)]
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "goes on after epoch 1, step 0 of the next" in finished.stdout
    assert largest_difference(load(whole / "checkpoint_last.pth.tar"), load(out / "checkpoint_last.pth.tar")) == 0
