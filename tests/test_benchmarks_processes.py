"""Classification in several real processes over gloo: what one process computes."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import in_processes
from tiny_classification import run_tiny
from torch import nn

from benchmarks.classification.batch_norm import SharedStatistics
from benchmarks.context import Measurement
from mocobench.runtime.distributed import gather_parts, part_sizes, rank, world_size


def run_in(count: int, task: str, data: Path, out: Path | None = None, **settings: Any) -> list[Measurement]:
    answers = in_processes(count, run_tiny, task, data, out, **settings)
    assert [code for code, _ in answers] == [0] * count, answers
    return [measurement for _, measurement in answers]


def numbers(value: Any) -> Any:
    """Numbers to within rounding, all else as it is."""
    if isinstance(value, dict):
        return {name: numbers(each) for name, each in value.items()}
    if isinstance(value, list):
        return [numbers(each) for each in value]
    return pytest.approx(value, rel=1e-4, abs=1e-5) if isinstance(value, float) else value


@pytest.mark.parametrize(
    ("task", "count"), [("linear", 2), ("linear", 3), ("linear-once", 2), ("sweep", 2), ("lbfgs", 2), ("knn", 2)]
)
def test_processes_equal_one_process(bright_and_dark: Path, task: str, count: int) -> None:
    (one,) = run_in(1, task, bright_and_dark)
    for other in run_in(count, task, bright_and_dark):
        assert other.metrics == one.metrics
        assert other.data == one.data
        assert other.details == numbers(one.details)


def test_fine_tuning_in_processes_equals_one_process(bright_and_dark: Path, tmp_path: Path) -> None:
    (one,) = run_in(1, "semi", bright_and_dark, tmp_path / "one")
    # Of three processes one has no pass in the batch of three images.
    for other in run_in(3, "semi", bright_and_dark, tmp_path / "several"):
        assert other.details == numbers(one.details)
    found, expected = (
        torch.load(tmp_path / out / "fine_tuned_last.pth", weights_only=True)["state"]["network"]
        for out in ("several", "one")
    )
    for name in ("conv1.weight", "bn1.weight", "bn1.running_mean", "bn1.running_var", "fc.weight"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)


def test_more_processes_than_passes_are_refused(bright_and_dark: Path) -> None:
    answers = in_processes(2, run_tiny, "semi", bright_and_dark, differing={"bn_batch": 9})
    said = [answer for _, answer in answers if answer]
    assert said == [
        "UserError: imagenet-semi: expected at most 1 processes, one for each --bn-batch 9 of --batch-size 9, found 2; "
        "start fewer"
    ]


def test_processes_share_kept_features(bright_and_dark: Path, tmp_path: Path) -> None:
    (one,) = run_in(1, "knn", bright_and_dark, context={"features": tmp_path / "one"})
    run_in(2, "knn", bright_and_dark, context={"features": tmp_path / "two"})
    files = [sorted((tmp_path / name).iterdir()) for name in ("one", "two")]
    assert [file.name for file in files[0]] == [file.name for file in files[1]]
    assert [file.read_bytes() for file in files[0]] == [file.read_bytes() for file in files[1]]
    again = run_in(2, "knn", bright_and_dark, context={"features": tmp_path / "one"})
    assert [measurement.details for measurement in again] == [one.details] * 2


def run_with_own_features(data: Path, folder: Path) -> Measurement:
    return run_tiny("knn", data, context={"features": folder / str(rank())})


def test_features_that_a_process_cannot_see_are_an_error(bright_and_dark: Path, tmp_path: Path) -> None:
    answers = in_processes(2, run_with_own_features, bright_and_dark, tmp_path)
    said = next(answer for _, answer in answers if answer)
    assert re.match(r"UserError: --features .*/1: expected features-\w+\.safetensors to be seen by every process", said)


@pytest.mark.slow
def test_torchrun_runs_the_command(bright_and_dark: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "mocobench", "bench", "imagenet-linear", "--protocol", "smoke", "--backbone", "random"]
    command += ["--arch", "resnet18", "--data", str(bright_and_dark), "--image-size", "32", "--test-resize", "36"]
    command += ["--train-views", "random-every-epoch", "--epochs", "2", "--workers", "0", "--device", "cpu"]
    command += ["--results", str(tmp_path / "results"), "--out", str(tmp_path / "out")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "2 processes, seed 0" in finished.stdout
    for line in ("mean feature norm", "hardest classes", "top-1 ", "wrote "):
        assert finished.stdout.count(line) == 1, line
    assert len(list((tmp_path / "results").iterdir())) == 1


def gather_by_tensor_split(total: int) -> list[int]:
    whole = torch.arange(total)
    own = whole.tensor_split(world_size())[rank()]
    assert len(own) == part_sizes(total)[rank()]
    return gather_parts(own, total).tolist()


def test_parts_come_together_as_tensor_split_took_them_apart() -> None:
    for total in (7, 2):
        assert in_processes(3, gather_by_tensor_split, total) == [(0, list(range(total)))] * 3


def statistics_after(num_passes: int) -> dict[str, list[float]]:
    network = nn.BatchNorm2d(3).train()
    generator = torch.Generator().manual_seed(0)
    passes = [torch.randn(4, 3, 2, 2, generator=generator) for _ in range(num_passes)]
    shared, sizes = SharedStatistics(network), part_sizes(num_passes)
    first = sum(sizes[: rank()])
    for images in passes[first : first + sizes[rank()]]:
        network(images)
    shared.merge(num_passes)
    return {name: getattr(network, name).tolist() for name in ("running_mean", "running_var")}


@pytest.mark.parametrize("num_passes", [1, 2, 5])
def test_running_statistics_are_those_of_passes_in_order(num_passes: int) -> None:
    expected = statistics_after(num_passes)
    for _, found in in_processes(3, statistics_after, num_passes):
        assert found == numbers(expected)
