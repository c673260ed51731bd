"""Engines: what a detection task asks of one, and what it answers.

An engine is a module `<name>_engine` beside this one with the functions

    check(protocol, context)    raises a UserError for what it cannot do, before any data is read
    run(backbone, data, protocol, context) -> Outcome

All engines get the same backbone, data, protocol and seed; the task scores what they found.
"""

import importlib
from dataclasses import dataclass, field
from typing import Any

from benchmarks.context import RunContext
from benchmarks.detection.embedded_model import require_resnet50, require_trained_from
from benchmarks.detection.protocol import DetectionProtocol
from benchmarks.detection.records import DetectionData, Detections
from benchmarks.run_folder import claim_folder
from transfer.backbone import Backbone

# What detecting can do without.
LESS_MEMORY = "lower --test-short-side, --rpn-post-nms-test or --detections-per-image, which change the protocol"


@dataclass(frozen=True)
class Outcome:
    """What a fine-tuned detector found in each test image, in their order, and how it got there.

    `curve` has the points of the loss curve: iterations done, learning rate, mean losses since the point before.
    `own_scores` are the metrics of an engine with evaluators of its own, in percent, by the task's metric names.
    `details` is what else the record should keep.
    """

    detections: tuple[Detections, ...]
    curve: tuple[dict[str, float], ...]
    train_seconds: float
    detection_seconds: float
    own_scores: dict[str, float] | None = None
    details: dict[str, Any] = field(default_factory=dict)


def check_request(backbone: Backbone, protocol: DetectionProtocol, context: RunContext) -> None:
    """Refuse what can be seen to be wrong before any data is read.

    Raises:
        UserError: the backbone is no ResNet-50, or not that of `context.detector`; or what the engine cannot do.
    """
    require_resnet50(backbone, protocol)
    if context.detector is not None:
        require_trained_from(backbone, context.detector)
    _engine(context).check(protocol, context)


def run_engine(backbone: Backbone, data: DetectionData, protocol: DetectionProtocol, context: RunContext) -> Outcome:
    """Run the engine that the context names.

    Raises:
        UserError: `context.out` holds another run, and whatever the engine finds.
    """
    claim_folder(backbone, protocol, context, data.identity)
    outcome: Outcome = _engine(context).run(backbone, data, protocol, context)
    return outcome


def _engine(context: RunContext) -> Any:
    return importlib.import_module(f"benchmarks.detection.{context.engine}_engine")


def evaluator_difference(outcome: Outcome, metrics: dict[str, float]) -> dict[str, float]:
    """For the record of an engine with evaluators of its own: how far `metrics`, ours, are from theirs, in points."""
    if outcome.own_scores is None:
        return {}
    assert outcome.own_scores.keys() == metrics.keys(), (outcome.own_scores, metrics)
    return {"evaluator_difference": max(abs(value - metrics[name]) for name, value in outcome.own_scores.items())}
