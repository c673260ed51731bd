"""`make perf`: the embedded engine beside Detectron2, each in processes of its own that take turns.

    python -m tests.perf [--out docs/performance] [--rounds 3] [--steps 3] [--device cpu]

Without Detectron2 only the embedded engine is timed, and no ratio is printed. `--out` also writes the measurements
(`.json`) and the page made from them (`.md`).
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import torch

from mocobench.runtime.detectron2 import INSTALLATION, why_no_detectron2
from mocobench.runtime.environment import code_version, environment_stamp
from mocobench.runtime.files import write_text
from tests.perf.one_engine import ENGINES, MODELS
from tests.perf.page import page, table
from tests.perf.voc_evaluation import time_voc_evaluation

STEPS = ("train", "infer")


def measure_engines(*, engines: tuple[str, ...], rounds: int, steps: int, device: str) -> list[dict[str, Any]]:
    """Median seconds and largest peak memory for every model, step and engine.

    Each round runs every engine once, in a process of its own, so that all of them meet the same noise.
    """
    rows = []
    for model in MODELS:
        for what in STEPS:
            runs: dict[str, list[dict[str, Any]]] = {engine: [] for engine in engines}
            for _ in range(rounds):
                for engine in engines:
                    runs[engine].append(_run(engine, model, what, steps=steps, device=device))
            measured = {
                engine: {
                    "seconds": median(second for run in of_engine for second in run["seconds"]),
                    "peak_memory_bytes": max(max(run["peak_memory_bytes"].values()) for run in of_engine),
                }
                for engine, of_engine in runs.items()
            }
            print(f"{model} {what}: " + ", ".join(f"{e} {m['seconds']:.3f} s" for e, m in measured.items()), flush=True)
            rows.append({"model": model, "step": what, "engines": measured})
    return rows


def _run(engine: str, model: str, what: str, *, steps: int, device: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.perf.one_engine", engine, model, what]
    done = subprocess.run(
        [*command, "--rounds", str(steps), "--device", device], check=True, capture_output=True, text=True
    )
    record: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="PATH", help="write PATH.json and PATH.md")
    parser.add_argument("--rounds", type=int, default=3, help="processes for each engine (3)")
    parser.add_argument("--steps", type=int, default=3, help="timed steps in each process (3)")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    why_not = why_no_detectron2()
    if why_not:
        print(f"Detectron2 is not timed: {why_not}; see {INSTALLATION}")
    engines = tuple(engine for engine in ENGINES if not (why_not and engine.startswith("detectron2")))
    record: dict[str, Any] = {
        "environment": environment_stamp(torch.device(args.device)),
        "code": code_version(),
        "rounds": args.rounds,
        "steps": args.steps,
        "detection": measure_engines(engines=engines, rounds=args.rounds, steps=args.steps, device=args.device),
    }
    if not why_not:
        record["voc_evaluation"] = time_voc_evaluation(5000, 100)
    print(table(record))
    if args.out is not None:
        write_text(args.out.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
        write_text(args.out.with_suffix(".md"), page(record))


if __name__ == "__main__":
    main()
