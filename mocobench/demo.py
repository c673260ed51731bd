"""The demo: draw a small picture world, then run the whole chain on it with the commands a user would type."""

import time
from pathlib import Path

from mocobench import cli
from mocobench.runtime.errors import UserError
from mocobench.runtime.files import write_text
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
        UserError: `out` is a file or the demo of another seed, or a step failed.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: expected a folder, found a file")
    _keep_to_seed(out / "seed.txt", seed)
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


def _keep_to_seed(path: Path, seed: int) -> None:
    """Write the seed down, or find it there.

    Raises:
        UserError: another one is there.
    """
    there = path.read_text(encoding="utf-8").strip() if path.exists() else str(seed)
    if there != str(seed):
        raise UserError(
            f"--out {path.parent}: expected a new folder or the demo of seed {seed}, found that of seed {there}; "
            "name another folder"
        )
    write_text(path, f"{seed}\n")


def _step(arguments: list[str]) -> None:
    print(f"\n$ mocobench {' '.join(arguments)}", flush=True)
    started = time.monotonic()
    try:
        cli.run(arguments)
    except UserError as error:
        raise UserError(f"the demo stopped in `mocobench {' '.join(arguments)}`: {error}") from error
    print(f"  ({time.monotonic() - started:.0f} s)", flush=True)
