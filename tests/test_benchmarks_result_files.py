"""Files of records: what a name tells apart, and which record is that of an equal run."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tiny_knn import CONTEXT, SMALL_KNN, knn_plan, run_knn

from benchmarks.protocol import protocol_record
from benchmarks.result import Result, read_result
from benchmarks.result_files import find_result, result_path, write_result
from benchmarks.run import Plan, backbone_record, load_task, plan_run
from transfer.network import random_backbone


def test_a_record_survives_the_file(bright_and_dark: Path, tmp_path: Path) -> None:
    result = run_knn(bright_and_dark)
    path = write_result(tmp_path / "results", result)
    # JSON has no tuples inside settings; all else comes back as it was.
    assert json.loads(read_result(path).to_json()) == json.loads(result.to_json())
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_the_file_is_named_by_what_tells_runs_apart(bright_and_dark: Path) -> None:
    result = run_knn(bright_and_dark)
    digest = result.backbone.digest[:8]
    named = replace(result.protocol, id="imagenet-knn/smoke@1", differs=())
    plain = replace(result, protocol=named)
    splits = result.data.splits
    listed = f"train {splits['train'].list_sha256}\nval {splits['val'].list_sha256}"
    lists = hashlib.sha256(listed.encode()).hexdigest()[:6]
    assert result_path(Path("r"), plain) == Path(f"r/imagenet-knn_smoke_random-{digest}_world-{lists}_seed3.json")
    spoken = replace(plain.backbone, name="My MoCo_v2 (200 ep)")
    name = result_path(Path("r"), replace(plain, backbone=spoken)).name
    assert name == f"imagenet-knn_smoke_my-moco-v2-200-ep-{digest}_world-{lists}_seed3.json"
    custom = result_path(Path("r"), result).name
    assert custom.startswith("imagenet-knn_smoke-custom-")
    other = replace(result.protocol, differs=("image_size: 112 -> 64",))
    assert result_path(Path("r"), replace(result, protocol=other)).name != custom


def test_another_version_of_a_protocol_is_another_file(bright_and_dark: Path) -> None:
    result = run_knn(bright_and_dark)
    second = replace(result.protocol, base=result.protocol.base.replace("@1", "@2"))
    assert result_path(Path("r"), replace(result, protocol=second)).name.startswith("imagenet-knn_smoke-2-custom-")


def test_another_engine_is_another_file(bright_and_dark: Path) -> None:
    result = run_knn(bright_and_dark)
    other = replace(result, engine={"name": "detectron2", "version": "0.6"})
    assert "-detectron2_" in result_path(Path("r"), other).name
    assert result_path(Path("r"), result) != result_path(Path("r"), other)


def test_precision_passes_and_other_images_make_another_file(bright_and_dark: Path) -> None:
    result = run_knn(bright_and_dark)
    val = replace(result.data.splits["val"], list_sha256="0" * 64)
    others = [
        replace(result, precision="bf16"),
        replace(result, details={"images_per_pass": 2}),
        replace(result, data=replace(result.data, splits={**result.data.splits, "val": val})),
    ]
    assert len({result_path(Path("r"), one) for one in (result, *others)}) == 4
    assert "-bf16_" in result_path(Path("r"), others[0]).name


def test_long_names_are_cut(bright_and_dark: Path, tmp_path: Path) -> None:
    result = run_knn(bright_and_dark)
    long = replace(
        result,
        backbone=replace(result.backbone, name="b" * 300),
        data=replace(result.data, name="d" * 300),
        engine={"name": "detectron2", "version": "0.6"},
        precision="bf16",
        seed=2**32 - 1,
        details={"images_per_pass": 1000},
    )
    path = write_result(tmp_path, long)
    assert read_result(path).backbone.name == "b" * 300
    # So much room a temporary name needs: dots, the process's number and `tmp`.
    assert len(path.name) + len(".." + "4194304" + ".tmp") <= 255


def test_an_equal_run_is_found_and_no_other(bright_and_dark: Path, tmp_path: Path) -> None:
    known = {"backbone": random_backbone("resnet18", 0), "backbone_name": "random", "data": bright_and_dark}
    results = tmp_path / "results"
    assert find_result(results, knn_plan(), **known) is None
    path = write_result(results, run_knn(bright_and_dark))
    assert find_result(results, knn_plan(), **known) == path
    others = {
        "overrides": {**SMALL_KNN, "neighbors": (1,)},
        "context": dataclasses.replace(CONTEXT, seed=4),
        "protocol_name": "paper",
    }
    for name, value in others.items():
        assert find_result(results, knn_plan(**{name: value}), **known) is None, name
    bf16 = knn_plan(context=dataclasses.replace(CONTEXT, precision="bf16"))
    assert find_result(results, bf16, **known) is None
    for name, value in {"backbone": random_backbone("resnet18", 1), "data": tmp_path / "other"}.items():
        assert find_result(results, knn_plan(), **{**known, name: value}) is None, name


def test_other_images_under_the_same_name_are_no_equal_run(bright_and_dark: Path, tmp_path: Path) -> None:
    known = {"backbone": random_backbone("resnet18", 0), "backbone_name": "random"}
    path = write_result(tmp_path / "results", run_knn(bright_and_dark))
    other = tmp_path / "elsewhere" / bright_and_dark.name
    shutil.copytree(bright_and_dark, other)
    assert find_result(tmp_path / "results", knn_plan(), **known, data=other) == path
    (other / "val" / "dark" / "0.png").rename(other / "val" / "dark" / "7.png")
    assert find_result(tmp_path / "results", knn_plan(), **known, data=other) is None


def test_images_that_are_skipped_are_no_difference(bright_and_dark: Path, tmp_path: Path) -> None:
    context = dataclasses.replace(CONTEXT, on_bad_image="skip")
    (bright_and_dark / "val" / "dark" / "0.png").write_bytes(b"<html>")
    known = {"backbone": random_backbone("resnet18", 0), "backbone_name": "random", "data": bright_and_dark}
    path = write_result(tmp_path / "results", run_knn(bright_and_dark, context=context))
    assert find_result(tmp_path / "results", knn_plan(context=context), **known) == path


@pytest.mark.parametrize("change", ["detector", "images_per_pass"])
def test_a_record_of_another_way_to_run_is_no_trial(change: str, voc: Path, tmp_path: Path, make_result: Any) -> None:
    """Its settings are those of a trial; what else differs is the detector, or how the batch was split."""
    backbone, detector = random_backbone("resnet18", 0), tmp_path / "other.pth"
    detector.write_bytes(b"abc")

    def plan(**how: Any) -> Plan:
        context = dataclasses.replace(CONTEXT, engine="embedded", **how)
        return plan_run("voc-detection", protocol_name="smoke", overrides={}, context=context)

    def record(planned: Plan) -> Result:
        passes = planned.context.images_per_pass
        return replace(
            make_result({"ap50": 1.0}, protocol="voc-detection/smoke@1", seed=3),
            protocol=protocol_record("voc-detection", planned.protocol, planned.differs),
            backbone=backbone_record(backbone, "random"),
            data=load_task("voc-detection").identify(voc, planned.protocol, planned.context),
            engine={"name": "embedded", "version": "0"},
            details={"images_per_pass": passes} if passes else {},
        )

    known = {"backbone": backbone, "backbone_name": "random", "data": voc}
    other = plan(**{"detector": detector} if change == "detector" else {"images_per_pass": 1})
    path = write_result(tmp_path / "results", record(other))
    assert find_result(tmp_path / "results", plan(), **known) is None
    assert find_result(tmp_path / "results", other, **known) == path
    own = write_result(tmp_path / "results", record(plan()))
    assert own != path
    assert find_result(tmp_path / "results", plan(), **known) == own
