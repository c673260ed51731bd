"""The measurements of `make perf` as the page docs/performance.md: a section for each part that was measured."""

from collections.abc import Callable
from typing import Any

from tests.perf.classification import features_section, knn_section, lbfgs_section, sweep_section
from tests.perf.detection import detection_section
from tests.perf.gpu import gpu_section
from tests.perf.input_section import input_section
from tests.perf.pretraining import pretraining_section
from tests.perf.reports import reports_section
from tests.perf.transfer import transfer_section

SECTIONS: dict[str, Callable[[dict[str, Any]], str]] = {
    "pretraining": pretraining_section,
    "input": input_section,
    "gpu": gpu_section,
    "features": features_section,
    "sweep": sweep_section,
    "knn": knn_section,
    "lbfgs": lbfgs_section,
    "detection": detection_section,
    "reports": reports_section,
    "transfer": transfer_section,
}


def page(record: dict[str, Any]) -> str:
    """docs/performance.md, of figures by section, each with the machine and the code that it was measured on."""
    parts = [
        "# Performance\n\n"
        "Made by `make perf`; the figures behind it are in [performance.json](performance.json). To compare with\n"
        "Detectron2 and Lightly (the optional group `peers`), run it with a Python that has them too:\n"
        "`make perf PERF_PYTHON=/path/to/python`. `make perf PERF_SECTIONS=input,reports` measures some sections anew\n"
        "and leaves the others as they were; each says what it was measured on.\n"
    ]
    for name, section in SECTIONS.items():
        if name in record:
            parts.append(f"{section(record[name]['figures'])}\n{_measured_on(record[name])}")
    return "\n".join(parts)


def _measured_on(measured: dict[str, Any]) -> str:
    environment, code = measured["environment"], measured["code"]
    packages = environment["packages"]
    return (
        f"*On {environment['device']}, {environment['threads']} threads, Python {environment['python']}, "
        f"torch {packages['torch']}, torchvision {packages['torchvision']};\n"
        f"code {' '.join(code.values())}.*\n"
    )
