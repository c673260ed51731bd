"""What a core spends on an image before training sees it: read, decode, crop, views; on the user's own images.

The steps are those of the loader (pretrain.data), in one thread. Reading is timed by the clock on the wall, waiting
included; the rest by the thread's own time, in which what other processes take from the core is not counted.
"""

import json
import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch

from mocobench.runtime.environment import code_version, environment_stamp
from mocobench.runtime.files import write_text
from mocobench.runtime.seeds import torch_generator
from pretrain.data import TwoViews
from pretrain.images import TrainingImages
from pretrain.settings import Recipe

CPU = torch.device("cpu")
ROUNDS = 5  # each on other images, so that they come from the disk and not from memory
REMEDIES = {
    "read": "more workers hide the waiting; a faster disk or tar shards shorten it",
    "decode": "store smaller images, their short side at about twice a view's",
    "crop": "store smaller images, their short side at about twice a view's",
    "views": "a GPU takes them over",
}


class Laps:
    """Seconds by step, added up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def lap(self, step: str, clock: Callable[[], float] = time.thread_time) -> Iterator[None]:
        started = clock()
        yield
        self.seconds[step] += clock() - started


@dataclass(frozen=True)
class InputCost:
    """Milliseconds of one core per image by step, the median over rounds; and what was measured.

    `mean_image` is (width, height) in pixels and the file's size in kilobytes.
    """

    milliseconds: dict[str, float]
    num_images: int
    mean_image: tuple[float, float, float]
    recipe: str
    image_size: int

    def worker_milliseconds(self, *, on_gpu: bool) -> float:
        """A worker's time per image; with a GPU the views are not its work."""
        return sum(value for step, value in self.milliseconds.items() if not (on_gpu and step == "views"))

    def workers_for(self, images_per_second: float, *, on_gpu: bool) -> int:
        """How many workers, each on a core of its own, feed that rate."""
        return max(1, math.ceil(images_per_second * self.worker_milliseconds(on_gpu=on_gpu) / 1000))


def measure_input_cost(images: TrainingImages, recipe: Recipe, *, num_images: int, seed: int) -> InputCost:
    """Measure on so many images drawn at random, or on all when there are fewer.

    Raises:
        UserError: an image cannot be read.
    """
    drawn = torch.randperm(len(images), generator=torch_generator(seed, "input cost")).tolist()[:num_images]
    items = TwoViews(images, recipe, seed, views_on_device=True, skip_bad=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _time_images(items, drawn[:1])  # what is done once, such as loading libraries
        rounds = [_time_images(items, drawn[number::ROUNDS]) for number in range(min(ROUNDS, len(drawn)))]
    finally:
        torch.set_num_threads(threads)
    return InputCost(
        {step: 1000 * median(seconds[step] for seconds, _ in rounds) for step in rounds[0][0]},
        num_images=len(drawn),
        mean_image=tuple(mean(size) for size in zip(*(size for _, sizes in rounds for size in sizes), strict=True)),
        recipe=recipe.name,
        image_size=recipe.image_size,
    )


def _time_images(items: TwoViews, indices: list[int]) -> tuple[dict[str, float], list[tuple[float, float, float]]]:
    """Seconds per image by step, and each image's width, height and kilobytes."""
    laps, sizes = Laps(), []
    for index in indices:
        with laps.lap("read", time.perf_counter):
            content = items.images.content(index)
        with laps.lap("decode"):
            image = items.images.decode(index, content)
        with laps.lap("crop"):
            crops = items.crop(image, 0, index)
        with laps.lap("views"):
            crops.finish(items.recipe, CPU)
        sizes.append((float(image.shape[2]), float(image.shape[1]), len(content) / 1000))
    return {step: seconds / len(indices) for step, seconds in laps.seconds.items()}, sizes


def to_text(cost: InputCost, *, rate: float) -> str:
    """A table, the bottleneck, and how many workers feed `rate` images per second."""
    width, height, kilobytes = cost.mean_image
    total = cost.worker_milliseconds(on_gpu=False)
    rows = {step: (value, f"{100 * value / total:.0f} %") for step, value in cost.milliseconds.items()}
    rows["worker, GPU"] = (cost.worker_milliseconds(on_gpu=True), "")
    rows["worker, no GPU"] = (total, "")
    slowest = max(cost.milliseconds, key=lambda step: cost.milliseconds[step])
    lines = [
        f"{cost.num_images} images, {width:.0f}x{height:.0f} and {kilobytes:.0f} kB on average; one core; two views of "
        f"{cost.image_size} pixels as in {cost.recipe}",
        "",
        f"{'step':<16}{'ms per image':>12}{'images/s per core':>20}{'share':>8}",
        *(f"{name:<16}{value:>12.2f}{1000 / value:>20.0f}{share:>8}" for name, (value, share) in rows.items()),
        "",
        f"bottleneck: {slowest}, {rows[slowest][1]} of the time; {REMEDIES[slowest]}",
        f"workers to feed {rate:g} images/s: {cost.workers_for(rate, on_gpu=True)} with the views on a GPU, "
        f"{cost.workers_for(rate, on_gpu=False)} without; this machine has {os.cpu_count()} cores",
    ]
    return "\n".join(line.rstrip() for line in lines)


def write_record(cost: InputCost, folder: Path, *, data: dict[str, Any], command: tuple[str, ...]) -> Path:
    """Write input-pipeline.json: the measurement, on what, and where."""
    record = {
        "measured": "input-pipeline",
        **asdict(cost),
        "images_per_second_per_core": {step: 1000 / value for step, value in cost.milliseconds.items()},
        "data": data,
        "code": code_version(),
        "environment": environment_stamp(CPU),
        "command": list(command),
    }
    path = folder / "input-pipeline.json"
    write_text(path, json.dumps(record, indent=2) + "\n")
    return path
