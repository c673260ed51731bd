"""Make detection_golden.json: what the real Detectron2 answers to weights and pictures that are formulas.

Needs Detectron2. From the repository's root:

    PYTHONPATH=.:tests OMP_NUM_THREADS=1 python tests/data/make_detection_golden.py
"""

import json
from pathlib import Path

import torch
from detection_golden import trace
from detection_reference import VARIANTS, Detectron2

from mocobench.runtime.files import atomic_file


def main() -> None:
    import detectron2

    golden = {
        "made_by": f"Detectron2 {detectron2.__version__}, torch {torch.__version__}",
        "command": "PYTHONPATH=.:tests OMP_NUM_THREADS=1 python tests/data/make_detection_golden.py",
        "variants": {name: trace(Detectron2, name) for name in VARIANTS},
    }
    # One variant per line.
    text = json.dumps(golden).replace('}, "', '},\n"')
    with atomic_file(Path(__file__).parent / "detection_golden.json") as path:
        path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
