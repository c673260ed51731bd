"""PASCAL VOC detection: Faster R-CNN R50-C4 fine-tuned end to end; AP50, AP and AP75 (MoCo v1, section 4.2)."""

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.context import Measurement, RunContext
from benchmarks.detection.protocol import VOC_PROTOCOLS, DetectionProtocol
from benchmarks.result import DataIdentity, Metric

if TYPE_CHECKING:
    from benchmarks.detection.records import DetectionData
    from transfer.backbone import Backbone

SUMMARY = "fine-tune a Faster R-CNN R50-C4 on PASCAL VOC: AP50, AP, AP75"
PROTOCOLS = VOC_PROTOCOLS
ENGINES = ("detectron2", "embedded")
METRIC_INFO = {"ap50": Metric("AP50"), "ap": Metric("AP"), "ap75": Metric("AP75")}


def run(backbone: "Backbone", data: Path, protocol: DetectionProtocol, context: RunContext) -> Measurement:
    """Read and check the data, fine-tune on the training splits, score on the test splits.

    Raises:
        UserError: what is asked for cannot be run, see `check_request`; or the data folder, a file in it or one of its
            annotations is bad, see `read_voc`.
    """
    from benchmarks.detection.data_summary import print_summary
    from benchmarks.detection.engine import check_request, evaluator_difference, run_engine
    from benchmarks.detection.pictures import after_detection
    from benchmarks.detection.voc_metric import IOU_THRESHOLDS, evaluate_voc

    check_request(backbone, protocol, context)
    sets = _read(data, protocol, context)
    print_summary(sets)
    outcome = run_engine(backbone, sets, protocol, context)
    scores = evaluate_voc(sets.test, outcome.detections, metric=protocol.metric)
    after_detection(sets, outcome.detections, scores.curves, context)
    at_50, at_75 = IOU_THRESHOLDS.index(0.50), IOU_THRESHOLDS.index(0.75)
    per_class = {
        name: {
            "ap50": 100 * float(row[at_50]),
            "ap": 100 * float(row.mean()),
            "ap75": 100 * float(row[at_75]),
            "objects": int(num_objects),
        }
        for name, row, num_objects in zip(sets.test.classes, scores.by_class, scores.num_objects, strict=True)
    }
    metrics = {"ap50": 100 * scores.ap50, "ap": 100 * scores.ap, "ap75": 100 * scores.ap75}
    return Measurement(
        metrics={name: (outcome.own_scores or metrics)[name] for name in metrics},
        metric_info=METRIC_INFO,
        data=sets.identity,
        details={
            "per_class": per_class,
            "loss_curve": list(outcome.curve),
            "detections": sum(len(found.scores) for found in outcome.detections),
            "train_seconds": outcome.train_seconds,
            "detection_seconds": outcome.detection_seconds,
            **evaluator_difference(outcome, metrics),
            **outcome.details,
        },
    )


def identify(data: Path, protocol: DetectionProtocol, context: RunContext) -> DataIdentity:
    """The images and annotations of the splits; see `read_voc`."""
    return _read(data, protocol, context).identity


def _read(data: Path, protocol: DetectionProtocol, context: RunContext) -> "DetectionData":
    from benchmarks.detection.voc_data import read_voc

    return read_voc(
        data,
        train_splits=protocol.train_splits,
        test_splits=protocol.test_splits,
        classes=protocol.classes,
        on_bad_annotation=context.on_bad_annotation,
    )
