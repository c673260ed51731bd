"""Pretraining on a CUDA device: what a CPU computes, and the same bits each time."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_pretraining import assert_same_state, draw_pictures, load, make_run, make_tiny_encoder

from mocobench.runtime.device import choose_device
from pretrain.step import StepMetrics, Trainer
from pretrain.train import pretrain

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
SETTINGS = {"differing": {"epochs": 3}, "checkpoint_every": 2}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return draw_pictures(tmp_path / "pictures", 26)


@pytest.mark.parametrize("method", ["moco", "end-to-end", "simclr"])
def test_a_run_ends_as_on_the_cpu(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """18 steps in fp32, views, BN groups, shuffle and queue on the device; weights and statistics to rounding."""
    monkeypatch.setattr("pretrain.methods.make_encoder", make_tiny_encoder)
    settings = SETTINGS | {"differing": {"epochs": 3, "method": method}}
    ends = [
        load(pretrain(make_run(pictures, tmp_path / name, device=choose_device(name), **settings)))
        for name in ("cpu", "cuda")
    ]
    for name, tensor in ends[0]["state_dict"].items():
        torch.testing.assert_close(ends[1]["state_dict"][name].cpu(), tensor, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_the_same_command_gives_the_same_bits(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arch: str
) -> None:
    """With other workers, and with steps that are not replayed, too."""
    differing = {"epochs": 2, "arch": arch, "image_size": 64}
    options = {"device": choose_device("cuda"), "precision": "bf16", "differing": differing}
    runs = [make_run(pictures, tmp_path / str(workers), num_workers=workers, **options) for workers in (0, 2)]
    ends = [load(pretrain(run)) for run in runs]
    assert_same_state(*ends)
    monkeypatch.setattr("mocobench.runtime.replay.CALLS_BEFORE", 1000)
    assert_same_state(ends[0], load(pretrain(make_run(pictures, tmp_path / "not replayed", **options))))


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(
    pictures: Path, tmp_path: Path, heeded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pretrain.methods.make_encoder", make_tiny_encoder)
    run = make_run(pictures, tmp_path / "whole", device=choose_device("cuda"), **SETTINGS)
    whole = load(pretrain(run))
    monkeypatch.setattr("pretrain.step.Trainer.step", _stopping_at(11))
    stopped = make_run(pictures, tmp_path / "stopped", device=choose_device("cuda"), **SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        pretrain(stopped)
    monkeypatch.undo()
    monkeypatch.setattr("pretrain.methods.make_encoder", make_tiny_encoder)
    assert_same_state(load(pretrain(stopped)), whole)


def _stopping_at(number: int) -> Callable[..., StepMetrics]:
    """`Trainer.step`, in whose call of this number somebody presses Ctrl-C."""
    calls, original = [], Trainer.step

    def step(*arguments: Any) -> StepMetrics:
        calls.append(0)
        if len(calls) == number:
            signal.raise_signal(signal.SIGINT)
        return original(*arguments)

    return step
