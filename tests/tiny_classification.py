"""A classification task on a few small images, called in a process of its own, where it may be killed."""

import os
import signal
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.classification import extraction, feature_cache, fine_tuning, linear
from benchmarks.classification.heads import LinearHeads
from benchmarks.classification.knn import run_knn
from benchmarks.classification.linear import run_linear
from benchmarks.classification.logistic_probe import run_logistic
from benchmarks.classification.protocol import KnnProtocol, LinearProtocol, LogisticProtocol
from benchmarks.classification.semi import run_semi
from benchmarks.classification.semi_protocol import SemiProtocol
from benchmarks.classification.svm import run_svm
from benchmarks.classification.svm_protocol import SvmProtocol
from benchmarks.context import Measurement, RunContext
from transfer.backbone import Backbone
from transfer.network import random_backbone

SIZES: dict[str, Any] = {"id": "x/tiny@1", "expected_images": (), "image_size": 32, "test_resize": 36}
# Five epochs of three steps, the last of two images: of three processes one then has none.
LINEAR = LinearProtocol(**SIZES, batch_size=5, epochs=5, learning_rate=(0.05,), decay_epochs=(3,))
PROTOCOLS: dict[str, Any] = {
    "linear": LINEAR,
    "linear-once": replace(LINEAR, train_views="center-once"),
    "sweep": replace(LINEAR, learning_rate=(0.01, 0.1), weight_decay=(0.0, 0.01), held_out=0.34),
    "lbfgs": LogisticProtocol(**SIZES, strengths=(1e-2, 1e-3), held_out=0.34),
    "knn": KnnProtocol(**SIZES, neighbors=(1, 5)),
    # Three epochs of two steps, of batches of nine and three images, in passes of three.
    "semi": SemiProtocol(**SIZES, labels=1.0, batch_size=9, bn_batch=3, epochs=3, learning_rate=0.01),
    "svm": SvmProtocol(
        **SIZES, train_splits=("trainval",), test_splits=("test",), grid=1, costs=(0.1, 10.0), shots=(1, 2), draws=3
    ),
}
TASKS: dict[str, Callable[..., Measurement]] = {
    "linear": run_linear,
    "linear-once": run_linear,
    "sweep": run_linear,
    "lbfgs": run_logistic,
    "knn": run_knn,
    "semi": run_semi,
    "svm": run_svm,
}
STEPS = {"linear": (LinearHeads, "step"), "sweep": (LinearHeads, "step"), "semi": (fine_tuning, "_step")}


def run_tiny(
    task: str,
    data: Path,
    out: Path | None = None,
    *,
    kill_at: int | None = None,
    arch: str = "resnet18",
    differing: dict[str, Any] | None = None,
    context: dict[str, Any] | None = None,
) -> Measurement:
    """Run a task, in a process of its own, for modules are changed.

    With `kill_at` it dies before that step of its optimizer, counted from 1.
    """
    # Several blocks of features, so that the ranks have something to share.
    for module in (extraction, linear):
        module.FEATURE_BATCH = 4
    fine_tuning.build_network = tiny_network
    if kill_at is not None:
        _die_before_step(task, kill_at)
    given = RunContext(seed=0, device=torch.device("cpu"), precision="fp32", num_workers=0, out=out, checkpoint_every=2)
    protocol = replace(PROTOCOLS[task], **(differing or {}))
    return TASKS[task](random_backbone(arch, 0), data, protocol, replace(given, **(context or {})))


def tiny_network(backbone: Backbone) -> nn.Module:
    """A convolution with BN in place of a ResNet-18, whose many layers would make rounding large and steps slow."""
    del backbone
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [("conv1", nn.Conv2d(3, 512, 8, 8)), ("bn1", nn.BatchNorm2d(512)), ("relu", nn.ReLU())]
        layers += [("pool", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten()), ("fc", nn.Identity())]
        return nn.Sequential(OrderedDict(layers))


def _die_before_step(task: str, number: int) -> None:
    owner, name = STEPS[task]
    original, count = getattr(owner, name), 0

    def step(*arguments: Any, **keywords: Any) -> Any:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **keywords)

    setattr(owner, name, step)


def die_while_writing_features(data: Path, folder: Path) -> None:
    """Killed before the third block of features is written."""
    original, count = feature_cache.FeatureFile.append, 0

    def append(self: feature_cache.FeatureFile, part: torch.Tensor) -> None:
        nonlocal count
        count += 1
        if count == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        original(self, part)

    feature_cache.FeatureFile.append = append
    run_tiny("knn", data, context={"features": folder})
