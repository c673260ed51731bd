"""What a task is given besides its backbone, data and protocol, and what it gives back."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.result import DataIdentity, Metric

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class RunContext:
    """How to run: the seed, the device and its precision (`fp32` or `bf16`), loader workers, a folder for files,

    and whether a bad annotation stops the run or is skipped, counted and listed (`stop`, `skip`).
    """

    seed: int
    device: "torch.device"
    precision: str
    num_workers: int
    out: Path | None = None
    on_bad_annotation: str = "stop"


@dataclass(frozen=True)
class Measurement:
    """What a task measured: metrics by name, the data it read, and details worth keeping (curves, per class)."""

    metrics: dict[str, float]
    metric_info: dict[str, Metric]
    data: DataIdentity
    details: dict[str, Any] = field(default_factory=dict)
