"""Running a task: names, engines, the stamped record; and the contract that every task module keeps."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_knn import CONTEXT, SMALL_KNN, knn_plan, run_knn

import benchmarks.tasks
from benchmarks.context import RunContext
from benchmarks.protocol import card, override, setting_flags, settings_of
from benchmarks.result import read_result
from benchmarks.result_files import write_result
from benchmarks.run import (
    choose_engine,
    describe_plan,
    load_task,
    plan_run,
    task_names,
)
from benchmarks.trials import Request, backbone_name, run_trials
from mocobench.cli import main
from mocobench.runtime.errors import UserError
from transfer.load import load, load_backbone
from transfer.network import random_backbone


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
    assert choose_engine("auto", ("torch",)) == ("torch", "")
    assert choose_engine("auto", ("embedded", "other")) == ("embedded", "taken by auto")
    assert choose_engine("other", ("embedded", "other")) == ("other", "")
    with pytest.raises(UserError, match=r"^--engine cafe: expected auto or embedded or other$"):
        choose_engine("cafe", ("embedded", "other"))


def test_auto_takes_detectron2_when_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    engines = ("detectron2", "embedded")
    monkeypatch.setattr("benchmarks.run.why_no_detectron2", lambda: None)
    assert choose_engine("auto", engines) == ("detectron2", "taken by auto")
    assert [choose_engine(name, engines) for name in engines] == [("detectron2", ""), ("embedded", "")]
    monkeypatch.setattr("benchmarks.run.why_no_detectron2", lambda: "it is not installed")
    assert choose_engine("auto", engines) == ("embedded", "taken by auto; no detectron2: it is not installed")
    assert choose_engine("embedded", engines) == ("embedded", "")
    with pytest.raises(UserError, match=r"expected Detectron2, but it is not installed; .*or use --engine embedded"):
        choose_engine("detectron2", engines)


@pytest.mark.parametrize(
    ("engine", "asked", "runs_in"),
    [
        ("auto", "auto", "fp32"),
        ("detectron2", "auto", "fp32"),
        ("detectron2", "fp32", "fp32"),
        ("embedded", "auto", "bf16"),
        ("embedded", "bf16", "bf16"),
        ("auto", "bf16", None),
        ("detectron2", "bf16", None),
    ],
)
def test_detectron2_runs_in_fp32(
    engine: str, asked: str, runs_in: str | None, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    contexts: list[RunContext] = []
    monkeypatch.setattr("benchmarks.run.why_no_detectron2", lambda: None)
    monkeypatch.setattr("mocobench.runtime.device.has_native_bf16", lambda device: True)
    monkeypatch.setattr("benchmarks.trials.run_trials", lambda request, context, num_trials: contexts.append(context))
    command = ["bench", "voc-detection", "--backbone", "random", "--data", "d", "--device", "cpu"]
    status = main([*command, "--engine", engine, "--precision", asked])
    assert [context.precision for context in contexts] == ([runs_in] if runs_in else [])
    assert status == (0 if runs_in else 2)
    if runs_in is None:
        assert (
            "--engine detectron2: expected --precision fp32, found bf16, in which it rounds" in capsys.readouterr().err
        )


def test_a_plan_says_what_will_run_before_it_does() -> None:
    lines = describe_plan(knn_plan()).splitlines()
    assert lines[0] == "imagenet-knn/smoke@1"
    sizes = "image_size: 112 -> 32; test_resize: 128 -> 36"
    assert lines[1] == f"  changed: {sizes}; neighbors: 1,5,10,20,50,100,200 -> 1,5"
    assert lines[2].startswith("  engine torch 2.")
    assert lines[3] == "  on cpu in fp32, seed 3"


def test_a_trained_detector_makes_the_protocol_custom(tmp_path: Path) -> None:
    file = tmp_path / "model_final.pth"
    context = dataclasses.replace(CONTEXT, detector=file)
    message = r"--detector .*model_final.pth: expected a trained detector \(model_final.pth\), found no such file"
    with pytest.raises(UserError, match=message):
        plan_run("voc-detection", protocol_name="smoke", overrides={}, context=context)
    file.write_bytes(b"abc")
    plan = plan_run("voc-detection", protocol_name="smoke", overrides={}, context=context)
    assert plan.differs == ("training: as set -> none, model_final.pth (sha256 ba7816bf8f01)",)


def test_the_plan_says_how_many_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mocobench.runtime.distributed.world_size", lambda: 2)
    assert describe_plan(knn_plan()).endswith("  on cpu in fp32, 2 processes, seed 3")


def test_the_plan_for_fewer_devices_by_hand() -> None:
    plan = plan_run(
        "voc-detection", protocol_name="paper", overrides={"warmup_iterations": 50}, context=CONTEXT, fewer_devices=4
    )
    protocol = plan.protocol
    assert (protocol.batch_size, protocol.learning_rate, protocol.iterations) == (4, 0.005, 96000)
    assert (protocol.decay_iterations, protocol.warmup_iterations) == ((72000, 88000), 200)
    assert plan.differs == (
        "batch_size: 16 -> 4",
        "iterations: 24000 -> 96000",
        "decay_iterations: 18000,22000 -> 72000,88000",
        "warmup_iterations: 100 -> 200",
        "learning_rate: 0.02 -> 0.005",
    )
    assert "  plan: 4 times fewer devices: batch and learning rate divided by 4" in describe_plan(plan)
    with pytest.raises(UserError, match=r"--fewer-devices 3: expected a divisor of the batch size, found 3 for 16"):
        plan_run("voc-detection", protocol_name="paper", overrides={}, context=CONTEXT, fewer_devices=3)


def test_an_unknown_protocol_lists_those_that_exist(bright_and_dark: Path) -> None:
    with pytest.raises(UserError, match="--protocol papier: expected one of paper, smoke"):
        run_knn(bright_and_dark, protocol_name="papier")


def test_the_record_says_what_ran(bright_and_dark: Path) -> None:
    result = run_knn(bright_and_dark)
    assert result.metrics == {"top1_k1": 100.0, "top1_k5": 100.0}
    assert result.protocol.id == "imagenet-knn/custom"
    assert result.protocol.base == "imagenet-knn/smoke@1"
    assert result.protocol.differs == (
        "image_size: 112 -> 32",
        "test_resize: 128 -> 36",
        "neighbors: 1,5,10,20,50,100,200 -> 1,5",
    )
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


def test_how_the_batch_was_split_is_in_the_record(bright_and_dark: Path) -> None:
    assert run_knn(bright_and_dark).details.keys().isdisjoint({"plan", "images_per_pass"})
    split = dataclasses.replace(CONTEXT, images_per_pass=2)
    assert run_knn(bright_and_dark, context=split).details["images_per_pass"] == 2


def test_trials_already_there_are_skipped(bright_and_dark: Path, tmp_path: Path, capsys) -> None:
    results, out = tmp_path / "results", tmp_path / "out"
    request = Request(
        task="imagenet-knn",
        backbone="random",
        arch="resnet18",
        data=bright_and_dark,
        protocol_name="smoke",
        overrides=SMALL_KNN,
        fewer_devices=1,
        results=results,
        command=("mocobench",),
    )
    run_trials(request, dataclasses.replace(CONTEXT, out=out), num_trials=2)
    assert sorted(read_result(path).seed for path in results.iterdir()) == [3, 4]
    assert sorted(path.name for path in out.iterdir()) == ["seed3", "seed4"]  # TensorBoard's metrics
    assert capsys.readouterr().out.count("wrote ") == 2
    before = {path.name: path.read_text() for path in results.iterdir()}
    run_trials(request, CONTEXT, num_trials=3)
    printed = capsys.readouterr().out
    assert [f"seed {seed}: skipped, " in printed for seed in (3, 4, 5)] == [True, True, False]
    assert printed.count("wrote ") == 1
    assert len(list(results.iterdir())) == 3
    assert {name: (results / name).read_text() for name in before} == before


def test_what_is_suspicious_about_a_checkpoint_is_said_once(
    bright_and_dark: Path, resnet_state: Any, tmp_path: Path, capsys
) -> None:
    state = resnet_state("resnet18")
    state["bn1.running_var"][:3] = 0
    file = tmp_path / "dead.pth"
    torch.save(state, file)
    (suspicion,) = load(file).warnings
    command = ["bench", "imagenet-knn", "--protocol", "smoke", "--backbone", str(file), "--data", str(bright_and_dark)]
    command += ["--image-size", "32", "--test-resize", "36", "--neighbors", "1", "--workers", "0", "--device", "cpu"]
    for flags in ([], ["--trials", "2"]):
        assert main([*command, *flags, "--results", str(tmp_path / "results")]) == 0
        printed = capsys.readouterr()
        assert printed.err.count(f"warning: {file}: {suspicion}\n") == 1
        assert "warning" not in printed.out


def test_the_folder_of_a_pretraining_run_is_refused(bright_and_dark: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "v2").mkdir()
    (tmp_path / "v2" / "checkpoint_last.pth.tar").touch()
    command = ["bench", "imagenet-knn", "--backbone", "random", "--data", str(bright_and_dark)]
    assert main([*command, "--results", str(tmp_path / "results"), "--out", str(tmp_path / "v2")]) == 2
    assert capsys.readouterr().err.endswith(
        "v2: expected a folder for this run's files, found checkpoint_last.pth.tar; name another folder\n"
    )
    assert len(list((tmp_path / "v2").iterdir())) == 1


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("random", "random"),
        ("runs/moco_v2_200ep_pretrain.pth.tar", "moco_v2_200ep_pretrain"),
        ("runs/r50.v2.safetensors", "r50.v2"),
        ("R-50.pkl", "R-50"),
        ("runs/v2/checkpoint_last.pth.tar", "v2"),
        ("runs/v2/checkpoint_0100.pth.tar", "v2/checkpoint_0100"),
        ("/checkpoint_last.pth.tar", "checkpoint_last"),
    ],
)
def test_tables_call_a_backbone_by_its_file(file: str, name: str) -> None:
    assert backbone_name(file) == name


def test_a_backbone_is_named_and_read_as_asked(bright_and_dark: Path, moco_content: Any, tmp_path: Path) -> None:
    file = tmp_path / "v2" / "checkpoint_last.pth.tar"
    file.parent.mkdir()
    torch.save(moco_content("resnet18"), file)
    command = ["bench", "imagenet-knn", "--protocol", "smoke", "--backbone", str(file), "--data", str(bright_and_dark)]
    command += ["--image-size", "32", "--test-resize", "36", "--neighbors", "1", "--workers", "0", "--device", "cpu"]
    flags = (["--from", "moco"], ["--encoder", "key"], ["--name", "MoCo v2"])
    for chosen in flags:
        assert main([*command, *chosen, "--results", str(tmp_path / "results")]) == 0
    found = [read_result(path) for path in (tmp_path / "results").iterdir()]
    digests = {encoder: load_backbone(file, encoder=encoder).digest for encoder in ("query", "key")}
    assert {(one.backbone.name, one.backbone.digest) for one in found} == {
        ("v2", digests["query"]),
        ("v2", digests["key"]),
        ("MoCo v2", digests["query"]),
    }
    assert {one.command[-4:-2] for one in found} == {tuple(chosen) for chosen in flags}


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
    assert callable(module.identify)


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
