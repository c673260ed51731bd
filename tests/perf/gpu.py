"""Pretraining on a GPU: the step on ready tensors beside training from JPEG files, and memory beside end-to-end's."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import torch

from mocobench.runtime.device import choose_precision
from pretrain.cost import Cost, cost_recipe, measure_apart
from tests.perf.input_pipeline import HEIGHT, WIDTH, write_images

CUDA = torch.device("cuda")
BATCH_SIZE, SIZE = 256, 224
STEPS = 20
PICTURES, EPOCH_STEPS, EPOCHS = 64, 32, 6  # each picture many times; the first epoch fills the queue of batches


def measure_gpu() -> dict[str, Any]:
    """The cost of a step by method, on ready tensors, and images per second of MoCo's training from files by epoch."""
    precision = choose_precision("auto", CUDA)
    costs = {method: _cost(method, precision) for method in ("moco", "end-to-end")}
    workers = (os.cpu_count() or 2) - 1
    return {
        "precision": precision,
        "batch_size": BATCH_SIZE,
        "image_size": SIZE,
        "image": f"{WIDTH}x{HEIGHT} JPEG",
        "steps": STEPS,
        "workers": workers,
        "ready": {name: cost.images_per_second for name, cost in costs.items()},
        "peak_memory_bytes": {name: cost.peak_memory_bytes["device"] for name, cost in costs.items()},
        "epochs_from_files": _from_files(workers)[1:],
    }


def _cost(method: str, precision: str) -> Cost:
    recipe = cost_recipe(method, batch_size=BATCH_SIZE, arch="resnet50", image_size=SIZE)
    return measure_apart(recipe, device=CUDA, precision=precision, num_steps=STEPS)


def _from_files(workers: int) -> list[dict[str, float]]:
    """Of each epoch of `mocobench pretrain`: images per second, and the share of the time that was spent waiting."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "train").mkdir()
        pictures = write_images(Path(folder) / "train", PICTURES)
        for number in range(PICTURES, EPOCH_STEPS * BATCH_SIZE):
            os.link(pictures[number % PICTURES], Path(folder) / "train" / f"{number:05d}.jpg")
        command = [sys.executable, "-m", "mocobench", "pretrain", "--recipe", "moco-v2-200ep", "--bn-groups", "1"]
        command += ["--data", folder, "--out", f"{folder}/run", "--device", "cuda", "--epochs", str(EPOCHS)]
        subprocess.run([*command, "--workers", str(workers)], check=True)
        lines = (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()
    names = ("images_per_second", "data_wait_share")
    return [{name: json.loads(line)[name] for name in names} for line in lines]


def gpu_section(record: dict[str, Any]) -> str:
    """The section on a GPU."""
    ready, memory, epochs = record["ready"], record["peak_memory_bytes"], record["epochs_from_files"]
    from_files = median(epoch["images_per_second"] for epoch in epochs)
    waiting = median(epoch["data_wait_share"] for epoch in epochs)
    lines = ["| step on ready tensors | images/s | peak memory, GiB |", "|---|---|---|"]
    lines += [f"| {name} | {ready[name]:.0f} | {memory[name] / 2**30:.1f} |" for name in ready]
    return (
        "## On a GPU\n\n"
        f"The methods of the paper's Table 3 with its ResNet-50 at {record['image_size']} pixels, batch "
        f"{record['batch_size']}, one BN group, {record['precision']}, each in a\n"
        f"process of its own: the median of {record['steps']} steps on views that are on the GPU already. Then "
        f"`mocobench pretrain` with\nMoCo v2's recipe from {record['image']} files, {record['workers']} workers: "
        f"the median of {len(epochs)} epochs.\n\n"
        + "\n".join(lines)
        + "\n\n"
        + f"- training from files reaches {from_files:.0f} images/s, **{100 * from_files / ready['moco']:.0f} %** of "
        f"the step on ready tensors (bound 90 %); {100 * waiting:.1f} % of the time is spent waiting for data\n"
        f"- MoCo needs **{100 * memory['moco'] / memory['end-to-end']:.0f} %** of end-to-end's memory (bound 70 %)\n"
    )
