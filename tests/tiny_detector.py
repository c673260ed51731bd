"""An R50-C4 of a few thousand weights, and runs of it, for tests of the embedded engine."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.context import RunContext
from benchmarks.detection import embedded_detection, embedded_engine, embedded_model, embedded_training
from benchmarks.detection.embedded import resnet
from benchmarks.detection.engine import Outcome, run_engine
from benchmarks.detection.protocol import DetectionProtocol
from benchmarks.detection.records import DetectionData, DetectionSet, LabelledImage
from benchmarks.result import DataIdentity, SplitIdentity
from transfer.backbone import Backbone
from transfer.network import random_backbone

TINY_STAGES = {"res2": (1, 4, 16, 1), "res3": (1, 8, 32, 2), "res4": (1, 8, 64, 2), "res5": (1, 8, 128, 2)}
PROTOCOL = DetectionProtocol(
    id="coco-detection/test@1",
    expected_images=(),
    train_splits=("train",),
    test_splits=("test",),
    classes="found",
    metric="coco",
    masks=True,
    rois_per_image=8,
    rpn_anchors_per_image=32,
    rpn_pre_nms_train=200,
    rpn_post_nms_train=30,
    rpn_pre_nms_test=200,
    rpn_post_nms_test=10,
    score_threshold=0.0,
    detections_per_image=3,
    train_short_sides=(32, 48),
    test_short_side=32,
    max_long_side=96,
    batch_size=4,
    iterations=7,
    decay_iterations=(5,),
    warmup_iterations=2,
    learning_rate=0.01,
    precise_bn_batches=3,
)
CONTEXT = RunContext(
    seed=0, device=torch.device("cpu"), precision="fp32", num_workers=0, engine="embedded", checkpoint_every=2
)


def use_tiny_model(patch: Callable[[Any, str, Any], None]) -> None:
    """Put the tiny model in the place of the embedded engine's, with `setattr` or a monkeypatch's."""
    patch(embedded_training, "build_model", build_tiny_model)
    patch(embedded_engine, "build_model", build_tiny_model)
    patch(embedded_detection, "CHUNK", 2)
    patch(embedded_training, "CURVE_STEP", 3)


def build_tiny_model(backbone: Backbone, protocol: DetectionProtocol, *, num_classes: int, seed: int) -> Any:
    stages = dict(resnet.STAGES)
    resnet.STAGES.update(TINY_STAGES)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return embedded_model._build(protocol, num_classes=num_classes, stride_in_1x1=False)
    finally:
        resnet.STAGES.update(stages)


def draw_squares(folder: Path, count: int = 7) -> DetectionData:
    """Noisy pictures of two shapes with a square each, both the training and the test images."""
    folder.mkdir(parents=True, exist_ok=True)
    images = []
    for number in range(count):
        width, height = (48, 32) if number % 3 else (32, 40)
        x = y = 2 + number
        pixels = np.random.default_rng(number).integers(0, 60, (height, width, 3), dtype=np.uint8)
        pixels[y : y + 20, x : x + 20] = (220, 40, 40)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        corners = [x, y, x + 20, y, x + 20, y + 20, x, y + 20]
        images.append(
            LabelledImage(
                number,
                folder / f"{number}.png",
                width,
                height,
                boxes=np.array([[x, y, x + 20, y + 20]], np.float32),
                labels=np.array([0]),
                difficult=np.array([False]),
                crowd=np.array([False]),
                segmentations=([corners],),
            )
        )
    both = DetectionSet(tuple(images), ("square",))
    splits = {name: SplitIdentity(count, "ab" * 32, count) for name in ("train", "test")}
    return DetectionData(both, both, DataIdentity("squares", 1, splits))


def run_tiny(data: Path, out: Path | None, *, kill: tuple[str, int] | None = None, **changes: Any) -> Outcome:
    """Run the engine on the squares drawn in `data`; `changes` are of the protocol or the context.

    `kill` names a function of `embedded_training` or `embedded_detection` and the call in which the process dies by
    SIGKILL, counted from 1.
    """
    use_tiny_model(setattr)
    if kill is not None:
        _die_in_call(*kill)
    fields = {f for f in PROTOCOL.__dataclass_fields__ if f in changes}
    protocol = replace(PROTOCOL, **{name: changes.pop(name) for name in fields})
    backbone = random_backbone("resnet18", seed=0)  # whose weights the tiny model does not take
    return run_engine(backbone, draw_squares(data), protocol, replace(CONTEXT, out=out, **changes))


def _die_in_call(name: str, call: int) -> None:
    module: Any = embedded_training if hasattr(embedded_training, name) else embedded_detection
    function, calls = getattr(module, name), 0

    def counted(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **keywords)

    setattr(module, name, counted)
