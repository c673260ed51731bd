"""Running a task: names, engines, the stamped record; and the contract that every task module keeps."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import benchmarks.tasks
from benchmarks.context import RunContext
from benchmarks.protocol import card, override, setting_flags, settings_of
from benchmarks.result import Result, read_result
from benchmarks.run import choose_engine, load_task, result_path, run_task, task_names, write_result
from mocobench.runtime.errors import UserError
from transfer.network import random_backbone

SMALL_KNN = {"image_size": 32, "test_resize": 36, "neighbors": (1, 5)}


def run_knn(data: Path, **changes: Any) -> Result:
    arguments: dict[str, Any] = {
        "backbone": random_backbone("resnet18", 0),
        "backbone_name": "random",
        "data": data,
        "protocol_name": "smoke",
        "overrides": SMALL_KNN,
        "engine": "auto",
        "context": RunContext(seed=3, device=torch.device("cpu"), precision="fp32", num_workers=0),
        "command": ("mocobench", "bench", "imagenet-knn"),
    }
    return run_task("imagenet-knn", **{**arguments, **changes})


def test_a_task_is_a_file_in_the_package() -> None:
    files = {path.stem.replace("_", "-") for path in Path(benchmarks.tasks.__path__[0]).glob("[!_]*.py")}
    assert set(task_names()) == files
    assert {"imagenet-linear", "imagenet-knn"} <= files


def test_an_unknown_task_lists_those_that_exist() -> None:
    with pytest.raises(UserError, match=r"task imagenet-lineal: expected one of .*imagenet-knn, imagenet-linear"):
        load_task("imagenet-lineal")
    with pytest.raises(UserError, match="task imagenet_knn: expected one of"):
        load_task("imagenet_knn")  # the module's name is not the task's


def test_engines() -> None:
    assert choose_engine("auto", ("embedded", "other")) == "embedded"
    assert choose_engine("other", ("embedded", "other")) == "other"
    with pytest.raises(UserError, match=r"^--engine cafe: expected auto or embedded or other$"):
        choose_engine("cafe", ("embedded", "other"))
    with pytest.raises(UserError, match="--engine detectron2: expected auto or embedded; this version drives the"):
        choose_engine("detectron2", ("embedded",))


def test_an_unknown_protocol_lists_those_that_exist(bright_and_dark: Path) -> None:
    with pytest.raises(UserError, match="--protocol papier: expected one of paper, smoke"):
        run_knn(bright_and_dark, protocol_name="papier")


def test_the_record_says_what_ran(bright_and_dark: Path) -> None:
    result = run_knn(bright_and_dark)
    assert result.metrics == {"top1_k1": 100.0, "top1_k5": 100.0}
    assert result.protocol.id == "imagenet-knn/custom"
    assert result.protocol.base == "imagenet-knn/smoke@1"
    assert result.protocol.differs == ("image_size: 112 -> 32", "test_resize: 128 -> 36", "neighbors: 20,200 -> 1,5")
    assert result.protocol.settings == {**SMALL_KNN, "temperature": 0.07}
    assert result.backbone.digest == random_backbone("resnet18", 0).digest
    assert (result.seed, result.data.name, result.precision) == (3, "world", "fp32")
    assert result.engine["name"] == "torch"
    assert result.wall_seconds > 0
    assert result.peak_memory_bytes["host"] > 2**20


def test_other_data_than_the_papers_is_custom(bright_and_dark: Path) -> None:
    result = run_knn(bright_and_dark, protocol_name="paper")
    assert result.protocol.is_custom
    assert result.protocol.differs[-2:] == ("train images: 1281167 -> 12", "val images: 50000 -> 6")


def test_a_record_survives_the_file(bright_and_dark: Path, tmp_path: Path) -> None:
    result = run_knn(bright_and_dark)
    path = write_result(tmp_path / "results", result)
    # JSON has no tuples inside settings; all else comes back as it was.
    assert json.loads(read_result(path).to_json()) == json.loads(result.to_json())
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_the_file_is_named_by_what_tells_runs_apart(bright_and_dark: Path) -> None:
    result = run_knn(bright_and_dark)
    digest = result.backbone.digest[:8]
    named = dataclasses.replace(result.protocol, id="imagenet-knn/smoke@1", differs=())
    plain = dataclasses.replace(result, protocol=named)
    assert result_path(Path("r"), plain) == Path(f"r/imagenet-knn_smoke_random-{digest}_world_seed3.json")
    spoken = dataclasses.replace(plain.backbone, name="My MoCo_v2 (200 ep)")
    name = result_path(Path("r"), dataclasses.replace(plain, backbone=spoken)).name
    assert name == f"imagenet-knn_smoke_my-moco-v2-200-ep-{digest}_world_seed3.json"
    custom = result_path(Path("r"), result).name
    assert custom.startswith("imagenet-knn_smoke-custom-")
    other = dataclasses.replace(result.protocol, differs=("image_size: 112 -> 64",))
    assert result_path(Path("r"), dataclasses.replace(result, protocol=other)).name != custom


def test_a_failed_run_writes_nothing(bright_and_dark: Path, tmp_path: Path) -> None:
    (bright_and_dark / "val" / "dark" / "0.png").write_bytes(b"<html>")
    with pytest.raises(UserError, match=r"dark/0\.png: expected an image that can be decoded"):
        write_result(tmp_path / "results", run_knn(bright_and_dark))
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("task", task_names())
def test_every_task_keeps_the_contract(task: str) -> None:
    module = load_task(task)
    assert module.SUMMARY
    assert "\n" not in module.SUMMARY
    assert module.ENGINES
    assert all(isinstance(engine, str) for engine in module.ENGINES)
    assert {"paper", "smoke"} <= module.PROTOCOLS.keys()
    assert callable(module.run)


@pytest.mark.parametrize(
    ("task", "name"), [(task, name) for task in task_names() for name in load_task(task).PROTOCOLS]
)
def test_every_protocol_keeps_the_contract(task: str, name: str) -> None:
    protocol = load_task(task).PROTOCOLS[name]
    assert [f.name for f in dataclasses.fields(protocol)][:2] == ["id", "expected_images"]
    kind, version = protocol.id.split("/")[1].rsplit("@", 1)
    assert protocol.id.startswith(f"{task}/")
    assert kind
    assert version.isdigit()
    with pytest.raises(dataclasses.FrozenInstanceError):
        protocol.id = "other"
    settings = settings_of(protocol)
    assert override(protocol, settings) == (protocol, ())
    assert set(settings_of(protocol)) == {keywords["dest"] for keywords in setting_flags(protocol).values()}
    assert card(protocol).startswith(protocol.id)
    json.dumps(settings, allow_nan=False)


def test_protocol_ids_are_unique() -> None:
    ids = [protocol.id for task in task_names() for protocol in load_task(task).PROTOCOLS.values()]
    assert len(ids) == len(set(ids))


def test_looking_at_tasks_loads_no_torch() -> None:
    code = (
        "import sys; from benchmarks.run import load_task, task_names; "
        "[load_task(name) for name in task_names()]; "
        "sys.exit(', '.join({'torch', 'torchvision', 'pycocotools'} & sys.modules.keys()) or 0)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
