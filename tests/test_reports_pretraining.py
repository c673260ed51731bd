"""Pretraining runs in a report: what their records say, and which metrics.jsonl is one of theirs."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pretrain.record import write_run_record
from pretrain.run import Progress, make_plan
from pretrain.sessions import begin_session
from reports.collect import collect_results
from reports.report import build_report
from tests.tiny_pretraining import make_run

PROBE = '{"iteration": 8, "epoch": 1, "learning_rate": 30.0, "loss": 2.0, "top1": 9.0}\n'
DETECTION = '{"iteration": 20, "learning_rate": 0.02, "total_loss": 2.0}\n'


def test_the_card_of_a_run_as_pretrain_records_it(tmp_path: Path, make_result: Any) -> None:
    run, progress = make_run(tmp_path / "images", tmp_path / "run-c"), Progress(epoch=2, seconds=600.0)
    for one in (run, run, replace(run, precision="bf16")):  # a third session, on a machine with other numbers
        begin_session(one, progress)
    progress.sessions[-1] |= {"device": "some GPU", "code": "0.2.0"}
    write_run_record(run, make_plan(run, num_images=10), progress, data={"images": 10, "list_sha256": "ab" * 32})
    (tmp_path / "run-c" / "metrics.jsonl").write_text('{"epoch": 1, "loss": 4.0}\n')
    (tmp_path / "a.json").write_text(make_result({"top1": 1.0}).to_json())
    text = " ".join(build_report([tmp_path]).split())
    first = progress.sessions[0]
    said = f"precision fp32, bf16; code {first['code']}, 0.2.0; device {first['device']}, some GPU; 10 min"
    assert f"images, 10 images (list {'ab' * 6}); seed 0; {said}" in text
    assert "None" not in text


def test_a_run_that_is_under_way_is_reported_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path / "images", tmp_path / "run", differing={"epochs": 4})
    write_run_record(run, make_plan(run, num_images=10), Progress(epoch=2), data={"images": 10})
    lines = (
        {"epoch": 1, "loss": 4.0, "knn_top1": 30.0, "knn_embedding_top1": 25.5},
        {"epoch": 2, "loss": 3.0, "knn_top1": 31.25, "knn_embedding_top1": 26.0},
        {"epoch": 3, "loss": 2.0},
    )
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = " ".join(build_report([tmp_path]).split())
    assert text.startswith("# Report ## Pretraining runs - **run**: recipe demo")
    assert "3 of 4 epochs done; online kNN top-1 31.25 by pooled features, 26.00 by embeddings, after epoch 2" in text


def test_what_the_first_version_recorded_of_a_run_is_read_too(tmp_path: Path, make_result: Any) -> None:
    record = {"recipe": {"augmentation": {}}, "precision": "bf16", "code": {"version": "0.1.0", "commit": "abc"}}
    (tmp_path / "run.json").write_text(json.dumps(record | {"environment": {"device": "a processor x 2"}}))
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "loss": 4.0}\n')
    (tmp_path / "a.json").write_text(make_result({"top1": 1.0}).to_json())
    text = " ".join(build_report([tmp_path]).split())
    assert "precision bf16; code 0.1.0 abc; device a processor x 2; 0 s" in text


@pytest.mark.parametrize("log", [PROBE, DETECTION, "{"])
def test_the_curve_of_a_benchmark_is_no_pretraining_run(tmp_path: Path, make_result: Any, log: str) -> None:
    (tmp_path / "a.json").write_text(make_result({"top1": 1.0}).to_json())
    (tmp_path / "metrics.jsonl").write_text(log)
    found = collect_results([tmp_path])
    assert (found.logs, found.left_out) == ((), ())
