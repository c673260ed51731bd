"""What a step costs: measured in a process of its own, recorded, and refused where it makes no sense."""

import json
from pathlib import Path

import pytest
import torch
from tiny_pretraining import assert_same_state, draw_pictures, load, make_run, make_tiny_encoder

from benchmarks.pretrain_cost import projected_hours
from benchmarks.result import read_result
from mocobench.cli import main
from mocobench.runtime.errors import UserError
from pretrain.cost import cost_recipe, measure_apart
from pretrain.run import Cost, estimate_text
from pretrain.train import pretrain

CPU = torch.device("cpu")


def test_hours_by_hand() -> None:
    # The paper's 53 hours for MoCo are 200 x 1,281,167 / (53 x 3600) = 1343 images a second.
    assert projected_hours(1343) == pytest.approx(53, abs=0.05)


def test_a_batch_is_one_devices() -> None:
    recipe = cost_recipe("moco", batch_size=32, arch="resnet50", image_size=224)
    assert (recipe.batch_size, recipe.bn_groups, recipe.queue_size) == (32, 1, 65536)
    assert cost_recipe("end-to-end", batch_size=32, arch="resnet50", image_size=224).queue_size == 0


def test_the_command_writes_a_record_for_each_method_and_batch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (
        "bench pretrain-cost --methods moco,end-to-end --batch-sizes 2 --arch resnet18 --image-size 32 --steps 2"
    )
    assert main([*arguments.split(), "--device", "cpu", "--results", str(tmp_path)]) == 0
    assert "moco, batch 2: " in capsys.readouterr().out
    records = {result.protocol.settings["method"]: result for result in map(read_result, tmp_path.glob("*.json"))}
    assert set(records) == {"moco", "end-to-end"}
    moco = records["moco"]
    assert moco.protocol.id == "pretrain-cost/custom"
    assert moco.protocol.differs == ("arch: resnet50 -> resnet18", "image_size: 224 -> 32")
    assert moco.metrics["memory_gib"] * 2**30 == moco.peak_memory_bytes["host"]
    assert moco.metrics["hours_200_epochs"] == projected_hours(moco.metrics["images_per_second"])


def test_the_peak_is_not_that_of_this_process() -> None:
    ballast = torch.zeros(2**29)  # 2 GiB
    ballast.add_(1)
    recipe = cost_recipe("end-to-end", batch_size=2, arch="resnet18", image_size=32)
    cost = measure_apart(recipe, device=CPU, precision="fp32", num_steps=1)
    assert cost.peak_memory_bytes["host"] < ballast.nbytes


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--methods", "moco,byol"), "--methods byol: expected moco or end-to-end"),
        (("--batch-sizes", "1"), "--batch-sizes 1: expected at least 2 images, which BN needs"),
        (("--arch", "vgg"), "--arch vgg: expected one of resnet18, resnet34, resnet50"),
        (("--batch-sizes", "0"), "expected a whole number from 1, found 0"),
    ],
)
def test_bad_flags_are_one_line(
    flags: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "pretrain-cost", *flags, "--results", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_batch_that_does_not_fit_says_so() -> None:
    recipe = cost_recipe("end-to-end", batch_size=2**24, arch="resnet18", image_size=224)
    with pytest.raises(
        UserError, match=r"end-to-end at batch 16777216: expected enough memory, found .*; use a smaller"
    ):
        measure_apart(recipe, device=CPU, precision="fp32", num_steps=1)


def test_the_estimate_by_hand() -> None:
    cost = Cost(seconds_per_step=1.5, images_per_second=10.0, peak_memory_bytes={"host": 3 * 2**30})
    assert estimate_text(cost, steps=4800) == (
        "2.0 h, memory of a process: host 3.0 GiB; from steps of 1.5 s on random views, without waiting for data, "
        "monitors and checkpoints"
    )
    assert estimate_text(cost, steps=80).startswith("2 min, memory")


def test_the_plan_of_a_long_run_has_an_estimate_that_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pretrain.methods.make_encoder", make_tiny_encoder)
    images = draw_pictures(tmp_path / "images")
    without = pretrain(make_run(images, tmp_path / "without"))
    assert "estimated" not in capsys.readouterr().out
    monkeypatch.setattr("pretrain.cost.WORTH_ESTIMATING", 4)
    run = make_run(images, tmp_path / "with", differing={"epochs": 2})
    assert_same_state(load(pretrain(run)), load(without))
    assert "  estimated      0 min, memory of a process: host " in capsys.readouterr().out
    plan = json.loads((tmp_path / "with" / "run.json").read_text())["plan"]
    assert plan["estimate"]["seconds_per_step"] > 0
    # gone on with, its metrics say more
    pretrain(make_run(images, tmp_path / "again"))
    capsys.readouterr()
    (tmp_path / "again" / "checkpoint_last.pth.tar").unlink()
    pretrain(make_run(images, tmp_path / "again"))
    assert "estimated" not in capsys.readouterr().out
