"""Result records from folders: which files are records, and what the user is told of a broken one."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from benchmarks.result import RecordError
from reports.collect import LeftOut, collect_results


def test_records_are_found_below_the_folders_and_copies_count_once(tmp_path: Path, make_result: Any) -> None:
    one, two = make_result({"top1": 1.0}), make_result({"top1": 2.0}, seed=1)
    for name, result in (("a.json", one), ("deep/b.json", two), ("deep/copy.json", one)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(result.to_json())
    found = collect_results([tmp_path])
    assert sorted(result.seed for result in found.results) == [0, 1]
    assert found.left_out == (LeftOut(f"{tmp_path.name}/deep/copy.json", f"a copy of {tmp_path.name}/a.json"),)
    deep = tmp_path / "deep"
    assert collect_results([tmp_path, deep]).results == collect_results([deep, tmp_path]).results


def test_bulky_details_stay_in_the_file(tmp_path: Path, make_result: Any) -> None:
    result = replace(make_result({"top1": 1.0}), details={"per_class": {"dog": 1.0}, "plan": "batch / 2"})
    (tmp_path / "a.json").write_text(result.to_json())
    (read,) = collect_results([tmp_path]).results
    assert json.loads(read.to_json()) == json.loads(replace(result, details={"plan": "batch / 2"}).to_json())


def test_other_json_is_left_alone(tmp_path: Path, make_result: Any) -> None:
    (tmp_path / "run.json").write_text('{"recipe": "demo"}')
    (tmp_path / "backbone.pth.json").write_text("[1, 2]")
    (tmp_path / "result.json").write_text(make_result({"top1": 1.0}).to_json())
    assert len(collect_results([tmp_path]).results) == 1


@pytest.mark.parametrize("content", ["", "{", "<!DOCTYPE html>\n<p>not here</p>", "\x00\xff"])
def test_a_file_that_is_not_json_is_listed_in_one_line(tmp_path: Path, make_result: Any, content: str) -> None:
    (tmp_path / "good.json").write_text(make_result({"top1": 1.0}).to_json())
    (tmp_path / "broken.json").write_bytes(content.encode("latin-1"))
    found = collect_results([tmp_path])
    assert len(found.results) == 1
    (left_out,) = found.left_out
    assert left_out.file == f"{tmp_path.name}/broken.json"
    assert re.fullmatch(r"expected JSON, found .*; remove or rerun it", left_out.reason)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 99}, "expected a result record of schema 1, found 99"),
        ({"metrics": {"top1": float("nan")}}, 'expected finite numbers, found "top1": NaN'),
        (
            {"metrics": {"top1": "high"}},
            r"but metrics\[...\]: expected `float`, got `str`",
        ),
        ({"wall_seconds": float("-inf")}, 'expected finite numbers, found "wall_seconds": -Infinity'),
        ({"extra": 1}, "but Object contains unknown field `extra`"),
        ({"seed": "zero"}, "seed: expected `int`, got `str`"),
        ({"engine": ["torch"]}, "engine: expected `object`, got `array`"),
        ({"wall_seconds": None}, "wall_seconds: expected `float`, got `null`"),
        ({"metrics": {"top1": 10**400}}, r"metrics\[...\]: number out of range"),
        ({"metric_info": {}}, r"metric_info of \[\], not of \['top1'\]"),
        (
            {"metric_info": {"top1": {"title": "t", "higher_is_better": "yes"}}},
            "expected `bool`, got `str`",
        ),
        ({"peak_memory_bytes": {"host": "2 GB"}}, r"peak_memory_bytes\[...\]: expected `int`, got `str`"),
    ],
)
def test_a_broken_record_is_listed_and_named_where_it_is_the_only_one(
    tmp_path: Path, make_result: Any, change: dict[str, Any], message: str
) -> None:
    record = json.loads(make_result({"top1": 1.0}).to_json())
    (tmp_path / "bad.json").write_text(json.dumps({**record, **change}))
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "good.json").write_text(json.dumps(record))
    (left_out,) = collect_results([tmp_path]).left_out
    assert re.search(message, left_out.reason)
    (tmp_path / "good" / "good.json").unlink()
    with pytest.raises(RecordError, match=r"bad\.json: .*" + message) as caught:
        collect_results([tmp_path])
    assert "\n" not in str(caught.value)


def test_what_cannot_be_read_says_so(tmp_path: Path, make_result: Any, monkeypatch: Any) -> None:
    (tmp_path / "a.json").write_text(make_result({"top1": 1.0}).to_json())
    (tmp_path / "b.json").symlink_to(tmp_path / "nothing")
    (tmp_path / "metrics.jsonl").symlink_to(tmp_path / "nothing")
    reasons = {one.reason for one in collect_results([tmp_path]).left_out}
    assert reasons == {"expected a file that can be read, found No such file or directory"}

    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(RecordError, match="expected a folder that can be read, found Permission denied"):
        collect_results([tmp_path])


def test_a_folder_without_records_says_so(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(RecordError, match=re.escape(f"{tmp_path}: expected result records (*.json) or")):
        collect_results([tmp_path])
    with pytest.raises(RecordError, match="expected a folder of result records, found nothing"):
        collect_results([tmp_path / "missing"])
    with pytest.raises(RecordError, match="expected a folder of result records, found a file"):
        collect_results([tmp_path / "run.json"])
