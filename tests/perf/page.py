"""The measurements of `make perf` as the page docs/performance.md: a section for each part that was measured."""

from typing import Any

from tests.perf.classification import classification_section
from tests.perf.detection import detection_section
from tests.perf.input_section import input_section
from tests.perf.pretraining import pretraining_section
from tests.perf.reports import reports_section
from tests.perf.transfer import transfer_section


def page(record: dict[str, Any]) -> str:
    """docs/performance.md."""
    environment, packages = record["environment"], record["environment"]["packages"]
    parts = [
        "# Performance\n\n"
        "Made by `make perf`; the figures behind it are in [performance.json](performance.json). To compare with\n"
        "Detectron2 and Lightly (the optional group `peers`), run it with a Python that has them too:\n"
        "`make perf PERF_PYTHON=/path/to/python`.\n\n"
        f"On {environment['device']}, {environment['threads']} threads, Python {environment['python']}, "
        f"torch {packages['torch']}, torchvision {packages['torchvision']}.\n"
    ]
    if "pretraining" in record:
        parts.append(pretraining_section(record["pretraining"]))
    if "input" in record:
        parts.append(input_section(record["input"]))
    if "classification" in record:
        parts.append(classification_section(record["classification"]))
    if "detection" in record:
        parts.append(detection_section(record))
    if "reports" in record:
        parts.append(reports_section(record["reports"]))
    if "transfer" in record:
        parts.append(transfer_section(record["transfer"]))
    return "\n".join(parts)
