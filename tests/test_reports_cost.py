"""The paper's Table 3 with measured rows."""

from typing import Any

import pytest

from benchmarks.pretrain_cost import cost_result
from benchmarks.result import RecordError, Result
from reports.collect import Collection
from reports.cost_table import cost_rows, cost_table
from reports.pretraining_logs import PretrainingLog
from reports.published import load_published
from reports.report import build_report, draw_report_pictures, render_report

GIB = 2**30


def cost(method: str = "moco", batch_size: int = 32, **changes: Any) -> Result:
    settings = {"method": method, "batch_size": batch_size, "arch": "resnet50", "image_size": 224}
    values: dict[str, Any] = {
        "num_steps": 10,
        "images_per_second": 711.759,  # 100 hours
        "peak_memory_bytes": {"host": 9 * GIB, "device": 5 * GIB},
        "precision": "bf16",
        "wall_seconds": 3.0,
        "code": {"version": "0.1.0"},
        "environment": {"device": "some GPU", "threads": 2},
        "command": ("mocobench",),
    }
    return cost_result(settings | changes.pop("settings", {}), **(values | changes))


def test_measured_rows_stand_under_the_papers() -> None:
    table = cost_table([cost("end-to-end"), cost(batch_size=64), cost()], cost_rows(load_published()))
    assert [(row.kind, *row.cells[:7]) for row in table.rows] == [
        ("published", "MoCo", "8 x V100 16 GB", "256", "32", "5.0", "–", "53"),
        ("published", "end-to-end", "8 x V100 16 GB", "256", "32", "7.4", "–", "65"),
        ("published", "end-to-end", "8 x V100 16 GB", "4096", "512", "93.0", "–", "–"),
        ("measured", "MoCo", "some GPU, bf16", "32", "32", "5.00", "711.8", "100"),
        ("measured", "MoCo", "some GPU, bf16", "64", "64", "5.00", "711.8", "100"),
        ("measured", "end-to-end", "some GPU, bf16", "32", "32", "5.00", "711.8", "100"),
    ]


def test_the_newest_record_of_a_measurement_counts() -> None:
    table = cost_table([cost(), cost(images_per_second=100.0), cost(precision="fp32")], [])
    assert [(row.cells[1], row.cells[5]) for row in table.rows] == [
        ("some GPU, bf16", "100.0"),
        ("some GPU, fp32", "711.8"),
    ]


def test_another_network_says_so() -> None:
    (row,) = cost_table([cost(settings={"arch": "resnet18"})], []).rows
    assert row.cells[1] == "some GPU, bf16, resnet18 at 224 pixels"


def test_costs_rank_no_backbone(make_result: Any) -> None:
    backbones = render_report(Collection((make_result({"top1": 50.0}),)), format="markdown")
    both = render_report(Collection((make_result({"top1": 50.0}), cost())), format="markdown")
    assert "### Table 3: cost of pretraining" in backbones
    assert "Measured rows**: none; the command bench pretrain-cost measures them" in " ".join(backbones.split())
    assert "### Table 3" not in both
    section = both[both.index("## Cost of pretraining: the paper's Table 3") :]
    assert "moco-batch32" not in both
    paper = backbones[: backbones.index("### Table 3")] + backbones[backbones.index("### Temperature") :]
    assert both[: both.index("## Cost")] == paper[: paper.index("## Backbones")]
    assert "| published | end-to-end | 8 x V100 16 GB | 4096 |" in " ".join(section.split())


def test_measured_costs_have_a_card() -> None:
    records = (cost(settings={"queue_size": 8}), cost("end-to-end", settings={"queue_size": 0}))
    text = " ".join(render_report(Collection(records), format="markdown").split())
    assert "**Protocol, MoCo**: queue_size 8; median of 10 steps; threads 2; code 0.1.0" in text
    assert "**Protocol, end-to-end**: queue_size 0; median of 10 steps; threads 2; code 0.1.0" in text


def test_costs_alone_are_a_report() -> None:
    text = render_report(Collection((cost(),)), format="markdown")
    assert text.startswith("# Report\n\n## Cost of pretraining: the paper's Table 3\n")
    assert "estimate" in text


def test_costs_alone_have_the_pictures_and_cards_of_pretraining_runs_beside_them() -> None:
    collection = Collection((cost(),), logs=(PretrainingLog("run-d", ({"epoch": 1.0, "loss": 4.0},)),))
    pictures = draw_report_pictures(collection)
    assert [picture.name for picture in pictures] == ["training-curves"]
    text = render_report(collection, format="markdown", pictures=pictures)
    assert "](training-curves.svg)" in text
    assert "## Pretraining runs\n\n- **run-d**: no run.json" in text


def test_a_record_without_its_batch_is_named(tmp_path: Any) -> None:
    record = cost().to_json().replace('"batch_size": 32', '"batch_size": "many"')
    (tmp_path / "one.json").write_text(record)
    with pytest.raises(RecordError, match="batch_size: expected `int`, got `str`"):
        build_report([tmp_path])
