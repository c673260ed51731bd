"""From JPEG files to two MoCo v2 views: milliseconds of one core per image and step, the official way and ours.

    python -m tests.perf.input_pipeline [--images 64] [--rounds 5]

Official: torchvision's transforms on PIL images, as the authors' code composes them. Ours: workers read, decode, draw
and crop to uint8 tensors; the device applies the rest to the batch, here on the same core. Both in one process on one
thread, in turns, so that both meet the same noise, and by the thread's own time; a round's figure is the mean over its
images, the figure shown the median over the rounds. Compare ratios between machines, not milliseconds.
"""

import argparse
import io
import json
import random
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from torchvision import transforms

from mocobench.runtime.seeds import python_generator
from pretrain.batch_views import ViewTable, apply_views, crop_views
from pretrain.decoding import decode_pixels
from pretrain.input_cost import Laps
from pretrain.moco_recipes import AUG_PLUS
from pretrain.recipes import RECIPES
from pretrain.run import TrainingRun
from pretrain.step import make_normaliser
from pretrain.views import View, draw_view

WIDTH, HEIGHT = 460, 395  # about the mean size of ImageNet's training images
SIZE = 224
ROLES = ("query", "key")


def write_images(folder: Path, count: int) -> list[Path]:
    """JPEGs of quality 90 with smooth colours and some grain, about 70 kB each."""
    generator = np.random.default_rng(0)
    paths = []
    for number in range(count):
        coarse = generator.integers(0, 256, (25, 29, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
        grainy = smooth + generator.normal(0, 6, (HEIGHT, WIDTH, 1))
        paths.append(folder / f"{number:05d}.jpg")
        Image.fromarray(grainy.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


def _official_transforms() -> tuple[Any, Any]:
    """The random crop, and all that follows it."""

    def blur(image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))

    rest = [
        transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
        transforms.RandomGrayscale(p=0.2),
        transforms.RandomApply([blur], p=0.5),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(mean=AUG_PLUS.mean, std=AUG_PLUS.std),
    ]
    return transforms.RandomResizedCrop(SIZE, scale=(0.2, 1.0)), transforms.Compose(rest)


def official_round(paths: list[Path]) -> dict[str, float]:
    """Seconds by step over all images; the batch is not put together."""
    laps = Laps()
    crop, rest = _official_transforms()
    for path in paths:
        with laps.lap("read"):
            content = path.read_bytes()
        with laps.lap("decode"):
            image = Image.open(io.BytesIO(content)).convert("RGB")
        for _ in ROLES:
            with laps.lap("crop"):
                cropped = crop(image)
            with laps.lap("views"):
                rest(cropped)
    return laps.seconds


def batch_round(paths: list[Path], number: int) -> dict[str, float]:
    """Seconds by step over all images: read, decode and crop are the workers' share, views the device's."""
    laps, normalise = Laps(), make_normaliser(_run())
    crops: list[torch.Tensor] = []
    drawn: list[View] = []
    for index, path in enumerate(paths):
        with laps.lap("read"):
            content = path.read_bytes()
        with laps.lap("decode"):
            image = decode_pixels(content, name=str(path))
        with laps.lap("crop"):
            for role in ROLES:
                generator = python_generator(number, "view", role, 0, index)
                drawn.append(draw_view(AUG_PLUS, width=image.shape[2], height=image.shape[1], generator=generator))
            crops.append(crop_views(image, drawn[-2:], size=SIZE))
    with laps.lap("crop"):
        batch, table = torch.cat(crops), ViewTable.of(drawn)
    with laps.lap("views"):
        views = apply_views(batch, table, order=AUG_PLUS.order[1:], size=SIZE)
        for view in views:  # as the official code does, one at a time
            normalise(view[None])
    return laps.seconds


def _run() -> TrainingRun:
    """A run of MoCo v2 here, for its normalisation."""
    return TrainingRun(
        recipe=RECIPES["moco-v2-200ep"],
        differs=(),
        data=Path(),
        out=Path(),
        seed=0,
        device=torch.device("cpu"),
        precision="fp32",
        num_workers=0,
    )


def measure_input(num_images: int, *, rounds: int = 5) -> dict[str, Any]:
    """Milliseconds of one core per image, and images per second and core, of every step of both pipelines.

    `workers` is read, decode and crop; `total` also has the views. `times_faster` is total against total, and
    `workers_share` our workers' milliseconds per official one.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    of_rounds: dict[str, list[dict[str, float]]] = {"official": [], "batch views": []}
    try:
        with tempfile.TemporaryDirectory() as folder:
            paths = write_images(Path(folder), num_images)
            official_round(paths[:4])
            batch_round(paths[:4], 0)
            for number in range(rounds):
                of_rounds["official"].append(official_round(paths))
                of_rounds["batch views"].append(batch_round(paths, number))
    finally:
        torch.set_num_threads(threads)
    milliseconds = {name: _milliseconds(found, num_images) for name, found in of_rounds.items()}
    official, ours = milliseconds["official"], milliseconds["batch views"]
    return {
        "num_images": num_images,
        "rounds": rounds,
        "image": f"{WIDTH}x{HEIGHT} JPEG",
        "view": f"2 x {SIZE}",
        "milliseconds": milliseconds,
        "images_per_second_per_core": {
            name: {step: 1000 / value for step, value in steps.items()} for name, steps in milliseconds.items()
        },
        "times_faster": official["total"] / ours["total"],
        "workers_share": ours["workers"] / official["total"],
    }


def _milliseconds(rounds: list[dict[str, float]], num_images: int) -> dict[str, float]:
    for seconds in rounds:
        seconds["workers"] = seconds["read"] + seconds["decode"] + seconds["crop"]
        seconds["total"] = seconds["workers"] + seconds["views"]
    return {step: 1000 * median(seconds[step] for seconds in rounds) / num_images for step in rounds[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    print(json.dumps(measure_input(args.images, rounds=args.rounds), indent=1))


if __name__ == "__main__":
    main()
