"""Results as a pandas table, and as the CSV of `mocobench report --runs`."""

from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pandas as pd
from msgspec.structs import replace

from benchmarks.result import Result
from mocobench.cli import main
from reports.frame import results_csv, results_frame

MakeResult = Callable[..., Result]


def test_a_row_for_each_metric(make_result: MakeResult) -> None:
    results = [make_result({"top1": 50.0, "top5": 80.0}), make_result({"top1": 20.5}, backbone="random", seed=3)]
    frame = results_frame(results)
    assert frame[["backbone", "seed", "metric", "value", "unit"]].values.tolist() == [
        ["demo", 0, "top1", 50.0, "%"],
        ["demo", 0, "top5", 80.0, "%"],
        ["random", 3, "top1", 20.5, "%"],
    ]
    assert frame["epochs"].tolist() == [20, 20, 0]
    assert frame["recipe"].isna().all()


def test_what_tells_rows_of_one_backbone_apart_is_there(make_result: MakeResult) -> None:
    result = make_result({"ap": 50.0}, protocol="voc-detection/smoke@1")
    backbone = replace(result.backbone, provenance={"format": "moco", "encoder": "key"})
    frame = results_frame([replace(result, backbone=backbone, details={"batch_norm": "over parts of 2 images of 16"})])
    assert frame[["encoder", "batch_norm"]].values.tolist() == [["key", "over parts of 2 images of 16"]]


def test_the_command_writes_what_pandas_reads_back(make_result: MakeResult, tmp_path: Path) -> None:
    results = [make_result({"top1": 100 / 3}), make_result({"top1": -20.5}, backbone="a,b\n=1")]
    for number, result in enumerate(results):
        (tmp_path / f"{number}.json").write_text(result.to_json())
    runs = tmp_path / "runs.csv"
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "report.md"), "--runs", str(runs)]) == 0
    frame = pd.read_csv(StringIO(runs.read_text()))
    assert sorted(frame["value"].tolist()) == [-20.5, 100 / 3]
    assert set(frame["backbone"]) == {"demo", "a,b\n=1"}


def test_no_field_of_the_csv_is_a_formula(make_result: MakeResult) -> None:
    frame = pd.read_csv(StringIO(results_csv([make_result({"top1": 1.0}, backbone="-2+3+cmd|' /C calc'!A0")])))
    assert frame["backbone"].tolist() == ["'-2+3+cmd|' /C calc'!A0"]
    frame = results_frame([make_result({"top1": 1.0}, backbone="=1")])
    assert frame["backbone"].tolist() == ["=1"]
