"""What loading workers pass on where there is no room for it, and a worker that dies: one line, and no waiting."""

import contextlib
import io
import os
import re
import resource
import signal
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import in_processes
from tiny_pretraining import draw_pictures, make_run, run_tiny
from torch import nn

import benchmarks.detection.input
import pretrain.data
from benchmarks.classification.data import CenterView, image_batches
from benchmarks.detection.input import inference_batches
from benchmarks.detection.protocol import VOC_PROTOCOLS
from benchmarks.detection.records import LabelledImage
from mocobench.cli import main
from mocobench.runtime.errors import UserError
from mocobench.runtime.images import ImageFolder, list_image_folder
from mocobench.runtime.workers import end_with_the_parent, lost_workers_are_named
from pretrain.data import OwnParts, load_batches
from pretrain.images import training_images
from pretrain.monitor import make_monitor


def load_for_training(data: Path) -> None:
    own_parts = OwnParts(training_images(data), make_run(data, data).recipe, seed=0)
    error = next(load_batches(own_parts, num_workers=1, views_on_device=False))
    assert isinstance(error, UserError)
    raise error


def load_for_the_monitor(data: Path) -> None:
    (data / "val").symlink_to(data / "train")
    make_monitor(data).measure(make_run(data, data, num_workers=1), nn.Sequential(OrderedDict(fc=nn.Flatten())))


def load_for_classification(data: Path) -> None:
    folder = list_image_folder(data / "train")
    next(image_batches(folder, [0, 1], view=CenterView(32, 32), batch_size=2, seed=0, num_workers=1))


def load_for_detection(data: Path) -> None:
    (path, *_) = sorted((data / "train").rglob("*.png"))
    width, height = Image.open(path).size
    none = np.zeros(0, int)
    image = LabelledImage("0", path, width, height, np.zeros((0, 4)), none, none > 0, none > 0)
    next(inference_batches((image,), VOC_PROTOCOLS["smoke"], num_workers=1))


def in_little_shared_memory(load, data: Path) -> None:
    """As Docker's 64 MiB are to a batch of 77: what workers share may not be larger than 1 kB."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
    load(data)


@pytest.mark.skipif(sys.platform != "linux", reason="limits shared memory as Linux does")
@pytest.mark.parametrize("load", [load_for_training, load_for_the_monitor, load_for_classification, load_for_detection])
def test_a_batch_without_room_is_an_error_and_no_waiting(load, tmp_path: Path) -> None:
    data = draw_pictures(tmp_path / "pictures")
    ((_, said),) = in_processes(1, in_little_shared_memory, load, data)
    found = r"found [\d.]+ of [\d.]+ MiB free \(File too large \(27\)\)"
    assert re.fullmatch(
        rf"UserError: /dev/shm: expected room for the \d\.\d MiB that a loading worker passes on, {found}; "
        r"give it more \(in Docker with --shm-size\), or use --workers 0",
        said,
    ), said


LOST = (
    r"--workers: expected the loading workers to stay until the end, found DataLoader worker .* (is killed by signal: "
    r"Killed\.|exited unexpectedly); if memory ran out, use fewer --workers or give the machine or container more of it"
)


def die(*arguments: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def lose_a_worker(data: Path, out: Path) -> None:
    pretrain.data.read_image = die
    run_tiny(data, out, num_workers=1)


def test_training_whose_worker_is_killed_ends_with_what_to_do(tmp_path: Path) -> None:
    ((_, said),) = in_processes(1, lose_a_worker, draw_pictures(tmp_path / "pictures"), tmp_path / "out")
    assert re.fullmatch(f"UserError: {LOST}", said), said


def lose_a_worker_of_bench(task: str, data: Path, results: Path) -> tuple[int, str]:
    ImageFolder.read = benchmarks.detection.input.read_rgb = die
    command = ["bench", *task.split(), "--protocol", "smoke", "--backbone", "random", "--device", "cpu"]
    with contextlib.redirect_stderr(io.StringIO()) as said:
        code = main([*command, "--data", str(data), "--results", str(results), "--workers", "1"])
    return code, said.getvalue()


@pytest.mark.parametrize(
    ("task", "data"),
    [
        ("imagenet-linear --arch resnet18", "bright_and_dark"),
        ("imagenet-semi --arch resnet18", "bright_and_dark"),
        ("voc-svm --arch resnet18", "voc"),
        ("voc-detection --engine embedded", "voc"),
    ],
)
def test_a_task_whose_worker_is_killed_ends_with_what_to_do(
    task: str, data: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = request.getfixturevalue(data)
    ((_, (code, said)),) = in_processes(1, lose_a_worker_of_bench, task, folder, tmp_path / "results")
    assert (code, bool(re.fullmatch(f"error: {LOST}", said.splitlines()[-1]))) == (2, True), said


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match=r"^shapes differ$"), lost_workers_are_named():
        raise RuntimeError("shapes differ")


@pytest.mark.parametrize(
    ("error", "is_said"), [(EOFError(), False), (ConnectionResetError(), False), (OSError(), True)]
)
def test_a_worker_whose_process_hung_up_says_nothing(error: Exception, is_said: bool, monkeypatch, capsys) -> None:
    monkeypatch.setattr("mocobench.runtime.workers.signal.signal", lambda *_: None)
    monkeypatch.setattr("mocobench.runtime.workers.sys.platform", "any")
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    end_with_the_parent(0)
    sys.excepthook(type(error), error, None)
    assert (type(error).__name__ in capsys.readouterr().err) == is_said
