"""Pretraining of an encoder of five layers on small noisy pictures, for tests of the run around it."""

import os
import signal
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

import pretrain.checkpoint
import pretrain.methods
import pretrain.step
from pretrain.batch_norm import GroupedBatchNorm2d
from pretrain.recipes import RECIPES, customise
from pretrain.run import TrainingRun
from pretrain.train import pretrain as run_pretraining

CHANGES: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 4,
    "bn_groups": 2,
    "image_size": 16,
    "queue_size": 10,
    "learning_rate": 0.03,
}


def make_tiny_encoder(arch: str, *, dim: int, bn_groups: int, **others: Any) -> nn.Module:
    del arch, others
    layers = {"conv1": nn.Conv2d(3, 8, 3, stride=2), "bn1": GroupedBatchNorm2d(8, num_groups=bn_groups)}
    return nn.Sequential(
        OrderedDict(layers, relu=nn.ReLU(), pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), fc=nn.Linear(8, dim))
    )


def draw_pictures(data: Path, count: int = 10) -> Path:
    """`count` pictures below `data/train`; returns `data`."""
    for number in range(count):
        folder = data / "train" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (20 + number % 3, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return data


def make_run(data: Path, out: Path, *, differing: dict[str, Any] | None = None, **changes: Any) -> TrainingRun:
    """A run on the CPU; `differing` are settings of the recipe, `changes` those of the run."""
    recipe, differs = customise(RECIPES["demo"], CHANGES | (differing or {}))
    run = TrainingRun(
        recipe=recipe,
        differs=differs,
        data=data,
        out=out,
        seed=0,
        device=torch.device("cpu"),
        precision="fp32",
        num_workers=0,
    )
    return replace(run, **changes)


def run_tiny(data: Path, out: Path, *, kill: tuple[str, float] | None = None, **changes: Any) -> str:
    """Run it with the tiny encoder, for a process of its own; `changes` are those of `make_run`.

    `kill` is ("step", n): SIGKILL before step n of this process; ("write", n): when half of its n-th checkpoint is
    written; or ("seconds", t): t seconds after its first step began. Steps and checkpoints count from 1.
    """
    pretrain.methods.make_encoder = make_tiny_encoder
    if kill is not None:
        _die(*kill)
    return run_pretraining(make_run(data, out, **changes)).name


def _die(what: str, when: float) -> None:
    place, name = (pretrain.checkpoint, "save_tensors") if what == "write" else (pretrain.step.Trainer, "step")
    function: Callable[..., Any] = getattr(place, name)
    calls = 0

    def counted(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        if what == "seconds" and calls == 1:
            threading.Timer(when, os.kill, (os.getpid(), signal.SIGKILL)).start()
        if what == "seconds" or calls < when:
            return function(*arguments, **keywords)
        if what == "write":
            path = arguments[1]
            function(*arguments)
            os.truncate(path, path.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
        return None

    setattr(place, name, counted)


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def assert_same_state(a: dict[str, Any], b: dict[str, Any]) -> None:
    """Two checkpoints agree bit for bit in weights, statistics, queue and optimizer."""
    assert a["epoch"] == b["epoch"]
    assert a["state_dict"].keys() == b["state_dict"].keys()
    for name, tensor in a["state_dict"].items():
        assert torch.equal(tensor, b["state_dict"][name]), name
    assert a["optimizer"]["param_groups"] == b["optimizer"]["param_groups"]
    assert a["optimizer"]["state"].keys() == b["optimizer"]["state"].keys()
    for key, state in a["optimizer"]["state"].items():
        assert torch.equal(state["momentum_buffer"], b["optimizer"]["state"][key]["momentum_buffer"])
