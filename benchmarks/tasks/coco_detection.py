"""COCO detection and segmentation: Mask R-CNN, R50-C4 or R50-FPN, fine-tuned end to end (MoCo v1, section 4.2)."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.context import Measurement, RunContext
from benchmarks.detection.protocol import COCO_PROTOCOLS, DetectionProtocol
from benchmarks.result import DataIdentity, Metric

if TYPE_CHECKING:
    from benchmarks.detection.records import DetectionData
    from transfer.backbone import Backbone

SUMMARY = "fine-tune a Mask R-CNN (R50-C4, R50-FPN) on COCO: AP, AP50, AP75 of boxes and of masks"
PROTOCOLS = COCO_PROTOCOLS
ENGINES = ("detectron2", "embedded")
KINDS = {"box": "bbox", "mask": "segm"}  # our word, pycocotools' word
HEADLINES = {"ap": "AP", "ap50": "AP50", "ap75": "AP75"}
METRIC_INFO = {f"{kind}_{name}": Metric(f"{kind} {title}") for kind in KINDS for name, title in HEADLINES.items()}


def run(backbone: "Backbone", data: Path, protocol: DetectionProtocol, context: RunContext) -> Measurement:
    """Read and check the data, fine-tune on the training splits, score boxes and masks on the test splits.

    Raises:
        UserError: what is asked for cannot be run, see `check_request`; or the data folder, a file in it or one of its
            annotations is bad, see `read_coco`.
    """
    from benchmarks.detection.coco_metric import evaluate_coco
    from benchmarks.detection.data_summary import print_summary
    from benchmarks.detection.engine import check_request, evaluator_difference, run_engine
    from benchmarks.detection.pictures import after_detection

    check_request(backbone, protocol, context)
    sets = _read(data, protocol, context)
    assert sets.ground_truth is not None
    print_summary(sets)
    outcome = run_engine(backbone, sets, protocol, context)
    kinds = KINDS if protocol.masks else {"box": KINDS["box"]}
    scores = {kind: evaluate_coco(sets.ground_truth, outcome.detections, iou_type=word) for kind, word in kinds.items()}
    after_detection(sets, outcome.detections, [curve for one in scores.values() for curve in one.curves], context)
    metrics = {
        f"{kind}_{name}": value
        for kind, scored in scores.items()
        for name, value in _percents(scored.stats).items()
        if name in HEADLINES and value is not None
    }
    assert len(metrics) == len(kinds) * len(HEADLINES), "the test split was read with objects that count"
    return Measurement(
        metrics={name: (outcome.own_scores or metrics)[name] for name in metrics},
        metric_info={name: METRIC_INFO[name] for name in metrics},
        data=sets.identity,
        details={
            "by_size": {kind: _percents(scored.stats, without=HEADLINES) for kind, scored in scores.items()},
            "per_class": {kind: _percents(scored.by_class) for kind, scored in scores.items()},
            "loss_curve": list(outcome.curve),
            "detections": sum(len(found.scores) for found in outcome.detections),
            "train_seconds": outcome.train_seconds,
            "detection_seconds": outcome.detection_seconds,
            **evaluator_difference(outcome, metrics),
            **outcome.details,
        },
    )


def identify(data: Path, protocol: DetectionProtocol, context: RunContext) -> DataIdentity:
    """The images and annotations of the splits; see `read_coco`."""
    return _read(data, protocol, context).identity


def _read(data: Path, protocol: DetectionProtocol, context: RunContext) -> "DetectionData":
    from benchmarks.detection.coco_data import read_coco

    return read_coco(
        data,
        train_splits=protocol.train_splits,
        test_splits=protocol.test_splits,
        masks=protocol.masks,
        on_bad_annotation=context.on_bad_annotation,
    )


def _percents(fractions: dict[str, float | None], *, without: Collection[str] = ()) -> dict[str, float | None]:
    """Fractions as percent; None stays None: the test split has no object of that class or size."""
    return {
        name: None if fraction is None else 100 * fraction
        for name, fraction in fractions.items()
        if name not in without
    }
