"""`make perf`: what this project is timed on, beside its peers where they are installed.

    python -m tests.perf [--out docs/performance] [--sections pretraining,input,...] [--device cpu]

Pretraining: MoCo v2's step beside Lightly's. Input: from JPEG files to views, the official way and ours. Gpu, left out
where there is none: training from files beside ready tensors, and memory beside end-to-end's.
Features beside the official loop, many heads (sweep) beside one, neighbours (knn) beside bare matrix products, logistic
regression (lbfgs) beside scikit-learn's. Detection: the embedded engine beside Detectron2. What is compared takes
turns, most of it in processes of its own; a peer that is not installed is left out, and no ratio is printed. `--out`
writes the measurements (`.json`) and the page made from them (`.md`), in which other sections stay as they were.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from mocobench.runtime.detectron2 import INSTALLATION, why_no_detectron2
from mocobench.runtime.environment import code_version, environment_stamp
from mocobench.runtime.files import write_text
from tests.perf.classification import measure_part
from tests.perf.detection import measure_engines
from tests.perf.gpu import measure_gpu
from tests.perf.input_pipeline import measure_input
from tests.perf.one_classification import PARTS
from tests.perf.page import SECTIONS, page
from tests.perf.pretraining import measure_steps
from tests.perf.reports import measure_report
from tests.perf.transfer import measure_transfer
from tests.perf.voc_evaluation import time_voc_evaluation


def measure(section: str, *, device: str, rounds: int, steps: int) -> dict[str, Any]:
    """The figures of a section; `rounds` and `steps` are those of the detection engines."""
    if section == "pretraining":
        return measure_steps(rounds=5, steps=2, device=device)
    if section == "input":
        return measure_input(64)
    if section == "gpu":
        return measure_gpu()
    if section in PARTS:
        return measure_part(section, rounds=5, device=device)
    if section == "detection":
        return _measure_detection(device=device, rounds=rounds, steps=steps)
    if section == "reports":
        return measure_report()
    assert section == "transfer", section
    return measure_transfer()


def _measure_detection(*, device: str, rounds: int, steps: int) -> dict[str, Any]:
    why_not = why_no_detectron2()
    if why_not:
        print(f"Detectron2 is not timed: {why_not}; see {INSTALLATION}")
    engines = measure_engines(with_detectron2=not why_not, rounds=rounds, steps=steps, device=device)
    figures = {"rounds": rounds, "steps": steps, "engines": engines}
    return figures if why_not else figures | {"voc_evaluation": time_voc_evaluation(5000, 100)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="PATH", help="write PATH.json and PATH.md")
    parser.add_argument("--sections", default=",".join(SECTIONS), metavar="A,B,...", help="(all)")
    parser.add_argument("--rounds", type=int, default=3, help="processes for each detection engine (3)")
    parser.add_argument("--steps", type=int, default=3, help="timed steps in each of them (3)")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    sections = args.sections.split(",")
    if unknown := set(sections) - set(SECTIONS):
        parser.error(f"--sections: expected some of {', '.join(SECTIONS)}, found {', '.join(sorted(unknown))}")
    record: dict[str, Any] = {}
    if args.out is not None and args.out.with_suffix(".json").exists():
        record = json.loads(args.out.with_suffix(".json").read_text(encoding="utf-8"))
    if "gpu" in sections and not torch.cuda.is_available():
        print("gpu is not measured: there is no CUDA device")
        sections.remove("gpu")
    for section in sections:
        device = torch.device("cuda" if section == "gpu" else args.device)
        stamp = {"environment": environment_stamp(device), "code": code_version()}
        figures = measure(section, device=args.device, rounds=args.rounds, steps=args.steps)
        record[section] = {**stamp, "figures": figures}
        if args.out is not None:
            write_text(args.out.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
            write_text(args.out.with_suffix(".md"), page(record))
    print(page({section: record[section] for section in sections}))


if __name__ == "__main__":
    main()
