"""`mocobench bench input-pipeline`: the arithmetic by hand, what is measured on pictures, and the command."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_pretraining import draw_pictures, make_run

import pretrain.input_cost
from mocobench.cli import main
from pretrain.images import FolderImages, training_images
from pretrain.input_cost import InputCost, measure_input_cost, to_text

COST = InputCost(
    {"read": 0.5, "decode": 2.0, "crop": 1.0, "views": 4.0}, 200, (460.0, 395.0, 70.0), "moco-v2-200ep", 224
)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return draw_pictures(tmp_path / "pictures", 12)


def test_workers_by_hand() -> None:
    assert COST.worker_milliseconds(on_gpu=True) == 3.5
    assert COST.worker_milliseconds(on_gpu=False) == 7.5
    assert COST.workers_for(2000, on_gpu=True) == 7  # exactly 7 seconds of work in a second
    assert COST.workers_for(2001, on_gpu=True) == 8
    assert COST.workers_for(2000, on_gpu=False) == 15
    assert COST.workers_for(1, on_gpu=True) == 1


def test_the_table_and_the_bottleneck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    assert to_text(COST, rate=2000).splitlines() == [
        "200 images, 460x395 and 70 kB on average; one core; two views of 224 pixels as in moco-v2-200ep",
        "",
        "step            ms per image   images/s per core   share",
        "read                    0.50                2000     7 %",
        "decode                  2.00                 500    27 %",
        "crop                    1.00                1000    13 %",
        "views                   4.00                 250    53 %",
        "worker, GPU             3.50                 286",
        "worker, no GPU          7.50                 133",
        "",
        "bottleneck: views, 53 % of the time; a GPU takes them over",
        "workers to feed 2000 images/s: 7 with the views on a GPU, 15 without; this machine has 16 cores",
    ]
    slow_disk = replace(COST, milliseconds=COST.milliseconds | {"read": 20.0})
    assert "bottleneck: read, 74 % of the time; more workers hide the waiting" in to_text(slow_disk, rate=1)


def test_time_is_put_down_to_its_step(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each image is read once; 20 ms of waiting in reading are in `read`, and in no other step."""
    read: list[int] = []

    def content(self: FolderImages, index: int) -> bytes:
        read.append(index)
        time.sleep(0.02)
        return original(self, index)

    original = FolderImages.content
    monkeypatch.setattr(FolderImages, "content", content)
    recipe = make_run(pictures, pictures).recipe
    cost = measure_input_cost(training_images(pictures), recipe, num_images=7, seed=0)
    assert list(cost.milliseconds) == ["read", "decode", "crop", "views"]
    assert cost.milliseconds["read"] >= 20
    assert all(0 < cost.milliseconds[step] < 20 for step in ("decode", "crop", "views"))
    assert len(set(read)) == cost.num_images == 7
    assert len(read) == 8  # the first one twice, to warm up
    width, height, kilobytes = cost.mean_image
    assert (width, cost.image_size) == (24, 16)
    assert 20 <= height <= 22
    assert 1 < kilobytes < 3


def test_command_prints_and_records(pictures: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(pretrain.input_cost, "ROUNDS", 2)
    arguments = ["bench", "input-pipeline", "--data", str(pictures), "--recipe", "demo"]
    assert main([*arguments, "--images", "4", "--results", str(tmp_path / "results")]) == 0
    said = capsys.readouterr().out
    assert "4 images, 24x21" in said
    assert "bottleneck: " in said
    record = json.loads((tmp_path / "results" / "input-pipeline.json").read_text())
    assert record["num_images"] == 4
    assert record["recipe"] == "demo"
    assert record["images_per_second_per_core"]["decode"] == 1000 / record["milliseconds"]["decode"]
    assert record["data"] == training_images(pictures).identity()
    assert record["command"][:3] == ["mocobench", "bench", "input-pipeline"]


def test_bad_image_is_one_line(pictures: Path, capsys) -> None:
    images = training_images(pictures)
    for index in range(len(images)):
        images.path(index).write_bytes(b"<html>")
    assert main(["bench", "input-pipeline", "--data", str(pictures)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {pictures}/train/")
    assert line.endswith("expected an image that can be decoded, found no known image format; replace or remove it")
