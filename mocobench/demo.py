"""The demo: draw a small picture world, then run the whole chain on it with the commands a user would type."""

import time
from pathlib import Path

from mocobench import cli
from mocobench.runtime.errors import UserError
from mocobench.world import draw_world

TASKS = (
    ("imagenet-linear", "imagenet"),
    ("imagenet-knn", "imagenet"),
    ("voc-detection", "VOCdevkit"),
    ("coco-detection", "coco"),
)


def run_demo(out: Path, *, seed: int = 0) -> None:
    """Pretrain, convert, measure a pretrained and a random ResNet-50 on four tasks, and report, all below `out`.

    A demo that was stopped goes on from its last checkpoint; data and results are made anew.

    Raises:
        UserError: `out` is a file, or a step failed.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: expected a folder, found a file")
    started = time.monotonic()
    data, results = out / "data", out / "results"
    print(f"$ drawing a world of textured shapes in {data}")
    draw_world(data, seed=seed)
    weights, report = out / "moco-v2-demo.safetensors", out / "report.md"
    common = ["--seed", str(seed)]
    _step(["pretrain", "--recipe", "demo", "--data", str(data / "imagenet"), "--out", str(out / "pretrain"), *common])
    checkpoint = str(out / "pretrain" / "checkpoint_last.pth.tar")
    _step(["convert", checkpoint, str(weights), "--to", "safetensors"])
    _step(["convert", checkpoint, str(out / "moco-v2-demo.detectron2.pkl"), "--to", "detectron2"])
    for task, folder in TASKS:
        for backbone in (str(weights), "random"):
            bench = ["bench", task, "--protocol", "smoke", "--backbone", backbone, "--data", str(data / folder)]
            _step([*bench, "--results", str(results), *common])
    _step(["report", str(results), "--out", str(report)])
    print(report.read_text(encoding="utf-8"))
    print(f"The whole chain took {(time.monotonic() - started) / 60:.1f} minutes. This report: {report}")


def _step(arguments: list[str]) -> None:
    print(f"\n$ mocobench {' '.join(arguments)}", flush=True)
    started = time.monotonic()
    status = cli.main(arguments)
    if status != 0:
        raise UserError(f"the demo stopped: `mocobench {' '.join(arguments)}` ended with status {status}")
    print(f"  ({time.monotonic() - started:.0f} s)", flush=True)
