"""`make perf`: what this project is timed on, beside its peers where they are installed.

    python -m tests.perf [--out docs/performance] [--sections pretraining,input,...] [--device cpu]

Pretraining: MoCo v2's step beside Lightly's. Input: from JPEG files to views, the official way and ours.
Classification: features beside the official loop, many heads beside one, neighbours beside bare matrix products,
logistic regression beside scikit-learn's. Detection: the embedded engine beside Detectron2. What is compared takes
turns, most of it in processes of its own; a peer that is not installed is left out, and no ratio is printed. `--out`
writes the measurements (`.json`) and the page made from them (`.md`), in which sections that were not measured are
missing.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from mocobench.runtime.detectron2 import INSTALLATION, why_no_detectron2
from mocobench.runtime.environment import code_version, environment_stamp
from mocobench.runtime.files import write_text
from tests.perf.classification import measure_classification
from tests.perf.detection import measure_engines
from tests.perf.input_pipeline import measure_input
from tests.perf.page import page
from tests.perf.pretraining import measure_steps
from tests.perf.reports import measure_report
from tests.perf.transfer import measure_transfer
from tests.perf.voc_evaluation import time_voc_evaluation

SECTIONS = ("pretraining", "input", "classification", "detection", "reports", "transfer")


def measure(sections: list[str], *, device: str, rounds: int, steps: int) -> dict[str, Any]:
    """The measurements of the sections; `rounds` and `steps` are those of the detection engines."""
    record: dict[str, Any] = {"environment": environment_stamp(torch.device(device)), "code": code_version()}
    if "pretraining" in sections:
        record["pretraining"] = measure_steps(rounds=5, steps=2, device=device)
    if "input" in sections:
        record["input"] = measure_input(64)
    if "classification" in sections:
        record["classification"] = measure_classification(rounds=5, device=device)
    if "detection" in sections:
        why_not = why_no_detectron2()
        if why_not:
            print(f"Detectron2 is not timed: {why_not}; see {INSTALLATION}")
        record |= {"rounds": rounds, "steps": steps}
        record["detection"] = measure_engines(with_detectron2=not why_not, rounds=rounds, steps=steps, device=device)
        if not why_not:
            record["voc_evaluation"] = time_voc_evaluation(5000, 100)
    if "reports" in sections:
        record["reports"] = measure_report()
    if "transfer" in sections:
        record["transfer"] = measure_transfer()
    return record


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
    record = measure(sections, device=args.device, rounds=args.rounds, steps=args.steps)
    print(page(record))
    if args.out is not None:
        write_text(args.out.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
        write_text(args.out.with_suffix(".md"), page(record))


if __name__ == "__main__":
    main()
