"""The record of what a pretraining method costs: MoCo v2's Table 3, measured here. The measuring is pretrain's."""

import hashlib
import json
from datetime import datetime, timezone
from typing import Any

from benchmarks.result import BackboneRecord, DataIdentity, Metric, ProtocolRecord, Result

TASK = "pretrain-cost"
PROTOCOL = f"{TASK}/one-device@1"
# What the paper's table is about; anything else is custom.
PAPER = {"arch": "resnet50", "image_size": 224}
IMAGENET_IMAGES, EPOCHS = 1_281_167, 200
METRICS = {
    "memory_gib": Metric("peak memory", "GiB", higher_is_better=False),
    "images_per_second": Metric("speed", "images/s"),
    "hours_200_epochs": Metric("200 epochs", "h", higher_is_better=False),
}


def cost_result(
    settings: dict[str, Any],
    *,
    num_steps: int,
    images_per_second: float,
    peak_memory_bytes: dict[str, int],
    precision: str,
    wall_seconds: float,
    code: dict[str, str],
    environment: dict[str, Any],
    command: tuple[str, ...],
) -> Result:
    """The record of one method at one batch size on one device.

    Args:
        settings: `method`, `batch_size`, `arch`, `image_size`, and what else was set.
        num_steps: how many steps the speed is the median of.
        images_per_second: of training steps alone; the hours are projected from it and hold where data keeps up.
        peak_memory_bytes: by place; the metric is that of the CUDA device where there is one, else of the process.
    """
    differs = tuple(f"{name}: {value} -> {settings[name]}" for name, value in PAPER.items() if settings[name] != value)
    memory = peak_memory_bytes.get("device", peak_memory_bytes["host"])
    identity = json.dumps([settings, precision, environment["device"], environment["threads"]], sort_keys=True)
    return Result(
        task=TASK,
        protocol=ProtocolRecord(f"{TASK}/custom" if differs else PROTOCOL, PROTOCOL, differs, settings),
        backbone=BackboneRecord(
            name=f"{settings['method']}-batch{settings['batch_size']}",
            arch=settings["arch"],
            digest=hashlib.sha256(identity.encode()).hexdigest(),
            input={},
            provenance={"format": "not trained", "method": settings["method"]},
        ),
        seed=0,
        engine={"name": "embedded", "version": code["version"]},
        precision=precision,
        metrics={
            "memory_gib": memory / 2**30,
            "images_per_second": images_per_second,
            "hours_200_epochs": projected_hours(images_per_second),
        },
        metric_info=METRICS,
        data=DataIdentity(name="random-views", classes=0, splits={}),
        code=code,
        environment=environment,
        wall_seconds=wall_seconds,
        peak_memory_bytes=peak_memory_bytes,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=command,
        details={"num_steps": num_steps},
    )


def projected_hours(images_per_second: float) -> float:
    """Hours for 200 epochs of ImageNet on one device at this speed."""
    return EPOCHS * IMAGENET_IMAGES / images_per_second / 3600
