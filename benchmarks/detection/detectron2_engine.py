"""The detectron2 engine: fine-tune and evaluate with the real Detectron2, from the same backbone, data and protocol."""

import contextlib
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.context import RunContext
from benchmarks.detection.detectron2_config import build_config
from benchmarks.detection.detectron2_data import mask_format, registered
from benchmarks.detection.detectron2_evaluation import build_evaluator, detect_and_score
from benchmarks.detection.detectron2_training import fine_tune
from benchmarks.detection.detectron2_weights import load_trained
from benchmarks.detection.embedded_parts import cut_batch
from benchmarks.detection.engine import Outcome
from benchmarks.detection.protocol import DetectionProtocol
from benchmarks.detection.records import DetectionData
from benchmarks.detection.sampler import images_to_train_on
from mocobench.runtime.detectron2 import detectron2_precision
from mocobench.runtime.distributed import is_main, world_size
from mocobench.runtime.errors import UserError
from transfer.backbone import Backbone

LOGGERS = ("detectron2", "fvcore", "torch.fx")  # torch.fx warns of what Detectron2 asks it


def check(protocol: DetectionProtocol, context: RunContext) -> None:
    """Refuse what Detectron2 would only fail on later, or get wrong.

    Raises:
        UserError: another precision than fp32, passes over a batch, or a batch that does not divide.
    """
    detectron2_precision(context.precision)
    if context.images_per_pass is not None:
        raise UserError(
            "--engine detectron2: expected one pass for each batch, found --images-per-pass "
            f"{context.images_per_pass}; Detectron2 cannot split a batch: leave it out or use --engine embedded"
        )
    cut_batch(protocol.batch_size, None)


def run(backbone: Backbone, data: DetectionData, protocol: DetectionProtocol, context: RunContext) -> Outcome:
    """Fine-tune on the training set, detect on the test set, and score with Detectron2's evaluators.

    With `context.out`, Detectron2's files go there: `config.yaml`, `log.txt`, `metrics.json`, TensorBoard events,
    checkpoints and `model_final.pth`; an unfinished run there is continued, see `fine_tune`. With `context.detector`
    that detector takes the place of the fine-tuned one.

    Raises:
        UserError: a value of the protocol or data that Detectron2 cannot take, or whatever fine-tuning and
            detection find.
    """
    if protocol.masks:
        _require_segmentations(data)
    parts = cut_batch(protocol.batch_size, None)
    with (
        _speaking_only_to(context.out),
        tempfile.TemporaryDirectory(prefix="mocobench-") as temporary,
        registered(data, prefix=Path(temporary).name) as (train_name, test_name),
    ):
        from detectron2.modeling import build_model

        _join_processes()
        workspace = Path(temporary)
        started = time.monotonic()
        cfg = _config(backbone, data, protocol, context)
        cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (train_name,), (test_name,)
        cfg.OUTPUT_DIR = str(context.out or workspace)
        evaluator = build_evaluator(data, protocol, name=test_name, workspace=workspace)
        model = build_model(cfg)
        curve: tuple[dict[str, float], ...] = ()
        start = 0
        if context.detector is None:
            curve, start = fine_tune(model, cfg, backbone, data, protocol, context, workspace=workspace)
        else:
            load_trained(model, backbone, protocol, file=context.detector)
        trained_at = time.monotonic()
        detections, scores = detect_and_score(model, cfg, data, protocol, evaluator)
    details: dict[str, Any] = {}
    if context.detector is None:
        details["batch_norm"] = parts.batch_norm(is_synchronised=cfg.MODEL.RESNETS.NORM == "SyncBN")
    if protocol.masks:
        details["mask_format"] = cfg.INPUT.MASK_FORMAT
    if start:
        details["resumed"] = f"from iteration {start}; times are of the last session"
    return Outcome(
        detections=detections,
        curve=curve,
        train_seconds=trained_at - started,
        detection_seconds=time.monotonic() - trained_at,
        own_scores=scores,
        details=details,
    )


def _require_segmentations(data: DetectionData) -> None:
    """Detectron2 would only fail later on objects to train on that have none."""
    if any(image.segmentations is None for image in images_to_train_on(data.train.images)):
        raise UserError(f"{data.identity.name}: expected a segmentation for every object, found boxes only")


def _join_processes() -> None:
    """Tell Detectron2 which of torchrun's processes share a machine."""
    if world_size() > 1:
        from detectron2.utils import comm

        comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))


def choose_norm(protocol: DetectionProtocol, context: RunContext) -> str:
    """Detectron2's name of the norm that stands for the protocol's.

    In one process SyncBN's statistics are BN's; on CPUs torch has no SyncBN, and each process has its own statistics.
    """
    return protocol.norm if world_size() > 1 and context.device.type == "cuda" else "BN"


def _config(backbone: Backbone, data: DetectionData, protocol: DetectionProtocol, context: RunContext) -> Any:
    cfg = build_config(
        protocol,
        spec=backbone.input,
        stride_in_1x1=backbone.stride_in_1x1,
        num_classes=len(data.train.classes),
        norm=choose_norm(protocol, context),
    )
    cfg.MODEL.DEVICE = str(context.device)
    cfg.INPUT.MASK_FORMAT = mask_format(data.train)
    cfg.DATALOADER.NUM_WORKERS = context.num_workers
    cfg.SOLVER.CHECKPOINT_PERIOD = context.checkpoint_every
    cfg.SEED = context.seed % 2**32  # NumPy takes no more
    return cfg


@contextlib.contextmanager
def _speaking_only_to(out: Path | None) -> Iterator[None]:
    """Detectron2's log goes to `log.txt` of the folder, or nowhere; neither it nor a warning is printed."""
    handler: logging.Handler = logging.NullHandler()
    if out is not None and is_main():
        out.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(out / "log.txt", encoding="utf-8")
        handler.setFormatter(logging.Formatter("[%(asctime)s] %(name)s %(levelname)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate
        handler.close()
