"""Records with one value replaced by what no run writes: each is in the report or listed, and no report breaks."""

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from reports.collect import collect_results
from reports.report import FORMATS, draw_report_pictures, render_report
from tests.test_reports_cost import cost

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
NASTY = (
    None,
    True,
    -1,
    10**300,
    10**400,
    1e308,
    "",
    "a|b\n<script>\\x",
    "\x00\x1b[2J",
    "é" * 5000,
    [],
    [[]],
    {},
    {"a": 1},
)


def damaged(record: Any) -> Iterator[Any]:
    """The record with each value, at every depth, replaced by each nasty one."""
    places = record.items() if isinstance(record, dict) else enumerate(record) if isinstance(record, list) else ()
    for key, value in list(places):
        for other in chain(NASTY, damaged(value)):
            record[key] = other
            yield record
        record[key] = value


def write_damaged(folder: Path, text: str) -> int:
    folder.mkdir()
    record = json.loads(text)
    for place in ("curve", "loss_curve"):
        record["details"].get(place, [])[1:] = []  # one point of a curve stands for all
    number = 0
    for number, content in enumerate(damaged(record)):
        (folder / f"{number}.json").write_text(json.dumps(content))
    return number


@pytest.mark.parametrize("task", ["imagenet-linear", "voc-detection", "pretrain-cost"])
def test_every_report_of_damaged_records_is_written(tmp_path: Path, task: str) -> None:
    text = cost().to_json() if task == "pretrain-cost" else next(RESULTS.glob(f"{task}*.json")).read_text()
    num_files = write_damaged(tmp_path / "damaged", text)
    (tmp_path / "damaged" / "whole.json").write_text(text)
    found = collect_results([tmp_path / "damaged"])
    assert len(found.results) > num_files / 20
    assert len(found.left_out) > num_files / 20
    pictures = draw_report_pictures(found)
    for format in FORMATS:
        text = render_report(found, format=format, pictures=pictures)
        assert "Traceback" not in text
