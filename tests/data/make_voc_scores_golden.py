"""Write voc_scores_golden.json: scores of random detections by Detectron2's VOC evaluator, for both its metrics.

    PYTHONPATH=.:tests python tests/data/make_voc_scores_golden.py       with Detectron2 0.6 installed

No two scores are equal, since the order of equal ones can differ between kinds of CPU.
"""

import json
import tempfile
from pathlib import Path

from perf.voc_evaluation import detectron2_scores, random_test_set, untied_detections, write_annotations

GOLDEN = Path(__file__).with_name("voc_scores_golden.json")
CLASSES = ("car", "dog", "cat")


def main() -> None:
    test = random_test_set(40, CLASSES, seed=0)
    # Of the last class there are no objects; Detectron2's area metric would be NaN for it.
    detections = untied_detections(test, seed=1)
    cases = []
    for year in (2007, 2012):
        with tempfile.TemporaryDirectory() as folder:
            write_annotations(test, Path(folder))
            scores, _ = detectron2_scores(test, detections, Path(folder), year=year)
        cases.append({"year": year, "expected": {name: float(value) for name, value in scores.items()}})
    GOLDEN.write_text(json.dumps({"classes": CLASSES, "num_images": 40, "cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main()
