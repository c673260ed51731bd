"""What a task is given besides its backbone, data and protocol, and what it gives back."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.result import DataIdentity, Metric

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class RunContext:
    """How to run. None of it is part of the protocol.

    `precision` is `fp32` or `bf16`; `num_workers` counts loader processes; `out` is a folder for files. A bad
    annotation, or an image to classify that cannot be read, stops the run or is skipped, counted and listed (`stop`,
    `skip`). `engine` is `auto` until one is chosen. `images_per_pass` splits the batch of each process into passes of
    that many images, None for one pass. `resume` says whether to continue what `out` holds (`auto`) or to refuse a
    folder that holds a run (`never`); `checkpoint_every` counts iterations, the steps of an optimizer; `visualize`
    counts the test images to draw. How many processes there are: `mocobench.runtime.distributed`. `detector` is a
    trained detector's file, to be evaluated instead of training one. `features` is a folder in which features of frozen
    backbones are kept for later runs; `label_list` is a file that names the images with labels.
    """

    seed: int
    device: "torch.device"
    precision: str
    num_workers: int
    out: Path | None = None
    on_bad_annotation: str = "stop"
    on_bad_image: str = "stop"
    engine: str = "auto"
    images_per_pass: int | None = None
    resume: str = "auto"
    checkpoint_every: int = 1000
    visualize: int = 0
    detector: Path | None = None
    features: Path | None = None
    label_list: Path | None = None


@dataclass(frozen=True)
class Measurement:
    """What a task measured: metrics by name, the data it read, and details worth keeping (curves, per class)."""

    metrics: dict[str, float]
    metric_info: dict[str, Metric]
    data: DataIdentity
    details: dict[str, Any] = field(default_factory=dict)
