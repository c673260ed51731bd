"""The page that `make perf` writes, from made-up measurements."""

from pathlib import Path
from typing import Any

import pytest

from tests.perf.classification import features_section, knn_section, lbfgs_section, sweep_section
from tests.perf.gpu import gpu_section
from tests.perf.input_section import input_section
from tests.perf.page import page
from tests.perf.pretraining import pretraining_section
from tests.perf.turns import median_of, peak_of, take_turns

STEPS = ("read", "decode", "crop", "views", "workers", "total")
PRETRAINING: dict[str, Any] = {
    "rounds": 5,
    "steps": 2,
    "lightly": "1.6.0",
    "auto": "bf16",
    "arch": "resnet50",
    "image_size": 224,
    "batch_size": 16,
    "queue_size": 65536,
    "implementations": {
        "lightly-fp32": {"seconds": 8.0, "images_per_second": 2.0, "peak_memory_bytes": 3 * 2**30},
        "lightly-kept": {"seconds": 6.4, "images_per_second": 2.5, "peak_memory_bytes": 4 * 2**30},
        "mocobench-fp32": {"seconds": 4.0, "images_per_second": 4.0, "peak_memory_bytes": 2**31, "overhead": 0.0312},
        "mocobench-auto": {"seconds": 2.0, "images_per_second": 8.0, "peak_memory_bytes": 2**30, "overhead": 0.04},
        "convolutions-fp32": {"seconds": 3.2, "images_per_second": 5.0, "peak_memory_bytes": 2**30},
    },
}


def test_the_step_is_shown_as_times_of_lightlys_speed() -> None:
    rows = [line for line in pretraining_section(PRETRAINING).splitlines() if line.startswith("|")]
    assert rows[2:] == [
        "| Lightly 1.6.0, fp32 | 8.000 | 2.00 |  |  | 3.00 |",
        "| Lightly 1.6.0, fp32, freed memory kept | 6.400 | 2.50 | 1.25x |  | 4.00 |",
        "| mocobench, fp32 | 4.000 | 4.00 | 2.00x | 3.1 % | 2.00 |",
        "| mocobench, auto (bf16) | 2.000 | 8.00 | 4.00x | 4.0 % | 1.00 |",
        "| the convolutions alone, PyTorch, fp32 | 3.200 | 5.00 | 2.50x |  | 1.00 |",
    ]


def test_without_lightly_there_is_no_ratio() -> None:
    ours = {name: row for name, row in PRETRAINING["implementations"].items() if "lightly" not in name}
    assert "x |" not in pretraining_section(PRETRAINING | {"implementations": ours, "lightly": None})


def test_the_input_pipeline_is_shown_by_step() -> None:
    record = {
        "num_images": 64,
        "rounds": 5,
        "image": "460x395 JPEG",
        "view": "2 x 224",
        "milliseconds": {"official": dict.fromkeys(STEPS, 10.0), "batch views": dict.fromkeys(STEPS, 2.5)},
        "images_per_second_per_core": {"official": {"total": 100.0}, "batch views": {"total": 400.0}},
        "times_faster": 4.0,
        "workers_share": 0.25,
    }
    text = input_section(record)
    assert "| mocobench, batch views | 2.50 | 2.50 | 2.50 | 2.50 | 2.50 | 2.50 | 400 |" in text
    assert "Workers' share: 2.50 ms. With no GPU, 4.00 times the official pipeline's speed per core." in text


def test_a_gpu_is_shown_beside_its_bounds() -> None:
    record = {
        "precision": "bf16",
        "batch_size": 256,
        "image_size": 224,
        "image": "460x395 JPEG",
        "steps": 20,
        "workers": 15,
        "ready": {"moco": 2000.0, "end-to-end": 1500.0},
        "peak_memory_bytes": {"moco": 13 * 2**30, "end-to-end": 20 * 2**30},
        "epochs_from_files": [
            {"images_per_second": speed, "data_wait_share": 0.01} for speed in (1900.0, 1840.0, 1800.0)
        ],
    }
    text = gpu_section(record)
    assert "| moco | 2000 | 13.0 |" in text
    assert "reaches 1840 images/s, **92 %** of the step on ready tensors (bound 90 %); 1.0 % of the time" in text
    assert "- MoCo needs **65 %** of end-to-end's memory (bound 70 %)" in text


def test_classification_is_shown_beside_its_bounds() -> None:
    strengths = [{"l2": 1e-3, "objective": 3.0, "peer_objective": 3.0000015, "peer_tolerance": 1e-5}]
    record = {
        "rounds": 5,
        "features": {
            "seconds": {"official": 6.0, "fp32": 4.0, "bf16": 2.0},
            "num_images": 64,
            "auto": "bf16",
            "difference": 4e-7,
        },
        "sweep": {
            "seconds": {"network": 4.75, "one head": 0.5, "all heads": 1.5},
            "num_images": 64,
            "batch_size": 128,
            "num_heads": 32,
        },
        "knn": {"seconds": {"products": 10.0, "search": 12.0}, "bank_bytes": 2**29, "peak_bytes": 2**30},
        "lbfgs": {"seconds": {"axes": 1.0, "ours 0.001": 4.0, "peer 0.001": 20.0}, "strengths": strengths},
    }
    rounds, sections = record.pop("rounds"), (features_section, sweep_section, knn_section, lbfgs_section)
    text = "".join(section({**part, "rounds": rounds}) for section, part in zip(sections, record.values(), strict=True))
    assert "- **1.50x** the official loop's speed in fp32 (bound 1.4x), features apart by a relative 4e-07" in text
    assert "- **3.00x** in auto, which is bf16 here (bound 2.5x)" in text
    assert (
        "- 32 heads cost **1.100x** a single one (bound 1.15x), reading images not counted; the heads alone 3.0x"
        in text
    )
    assert "- **1.20x** the products (bound 1.3x)" in text
    assert "- memory: the bank and **0.50 GiB**, the queries included (bound 1 GiB)" in text
    assert "| 0.001 | 4.00 | 20.00 | 1e-05 | 3.000000 | +5e-07 |" in text
    assert "- **4.00x** scikit-learn's speed over all strengths, the axes counted (bound 2.0x)" in text


def test_the_page_has_the_sections_that_were_measured_and_says_on_what() -> None:
    packages = {"torch": "2.6", "torchvision": "0.21"}
    environment = {"device": "a processor", "threads": 2, "python": "3.11", "packages": packages}
    measured = {"environment": environment, "code": {"version": "0.1", "commit": "abc"}, "figures": PRETRAINING}
    lines = page({"pretraining": measured}).splitlines()
    assert [line for line in lines if line.startswith("#")] == ["# Performance", "## Pretraining step"]
    assert lines[-2:] == [
        "*On a processor, 2 threads, Python 3.11, torch 2.6, torchvision 0.21;",
        "code 0.1 abc.*",
    ]


def test_processes_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    (tmp_path / "takes_a_turn.py").write_text(
        "import json, sys\n"
        f"open({str(log)!r}, 'a').write(sys.argv[1])\n"
        "print('not this line')\n"
        "print(json.dumps({'seconds': [1, int(sys.argv[1])]}))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    runs = take_turns({"a": ("takes_a_turn", "3"), "b": ("takes_a_turn", "5")}, rounds=2)
    assert log.read_text() == "3535"
    assert runs == {"a": [{"seconds": [1, 3]}] * 2, "b": [{"seconds": [1, 5]}] * 2}
    assert median_of(runs["a"], "seconds") == 2


def test_the_peak_is_the_devices_where_there_is_one() -> None:
    assert peak_of([{"peak_memory_bytes": {"host": 9, "device": 5}}, {"peak_memory_bytes": {"host": 7}}]) == 7
