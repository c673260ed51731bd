"""The embedded engine: fine-tune the embedded R-CNN from a Backbone, and detect with it."""

import time
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.context import RunContext
from benchmarks.detection.embedded_detection import detect
from benchmarks.detection.embedded_model import build_model, load_detector
from benchmarks.detection.embedded_parts import cut_batch
from benchmarks.detection.embedded_training import TrainedDetector, fine_tune
from benchmarks.detection.engine import Outcome
from benchmarks.detection.protocol import DetectionProtocol
from benchmarks.detection.records import DetectionData
from benchmarks.run_folder import describe_run
from transfer.backbone import Backbone


def check(protocol: DetectionProtocol, context: RunContext) -> None:
    """Refuse a batch that does not divide, where there is one to train on; see `cut_batch`."""
    if context.detector is None:
        cut_batch(protocol.batch_size, context.images_per_pass)


def run(backbone: Backbone, data: DetectionData, protocol: DetectionProtocol, context: RunContext) -> Outcome:
    """Fine-tune on the training set and detect on the test set; see `fine_tune` and `detect` for the errors.

    With `context.detector`, that detector takes the place of the fine-tuned one, and no detections are kept.
    """
    if context.detector is None:
        described = describe_run(backbone, protocol, context, data.identity)
        trained = fine_tune(backbone, data.train, protocol, context, run=described)
    else:
        trained = _load_trained(context.detector, backbone, data.train.classes, protocol, context)
        context = replace(context, out=None)  # detections there are of what was trained there
    trained_at = time.monotonic()
    detections = detect(trained, data.test, protocol, context)
    details = {"batch_norm": trained.batch_norm} if trained.batch_norm else {}
    if trained.resumed_at:
        details["resumed"] = f"from iteration {trained.resumed_at}; wall and detection times are of the last session"
    return Outcome(
        detections=tuple(detections),
        curve=trained.curve,
        train_seconds=trained.seconds,
        detection_seconds=time.monotonic() - trained_at,
        details=details,
    )


def _load_trained(
    path: Path, backbone: Backbone, classes: tuple[str, ...], protocol: DetectionProtocol, context: RunContext
) -> TrainedDetector:
    """A detector from its file, on the device; the backbone says how it wants its pixels."""
    model = build_model(backbone, protocol, num_classes=len(classes), seed=context.seed)
    load_detector(model, path)
    model.to(context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TrainedDetector(model.eval(), backbone.input, classes, curve=())
