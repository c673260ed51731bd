"""The command line's contract: errors are one line with status 2, and nothing is half-written."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import run_cli

from benchmarks.protocol import settings_of
from benchmarks.run import load_task
from mocobench.cli import build_parser, main

VOC = ["bench", "voc-detection", "--backbone", "random", "--data", "none", "--engine", "embedded"]

KNN = ["bench", "imagenet-knn", "--backbone", "random", "--data", "none"]

PRETRAIN = ["pretrain", "--recipe", "demo", "--data", ".", "--out", "o"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: expected a command; see `mocobench --help`"),
        (["pretrain"], "error: the following arguments are required: --recipe, --data, --out"),
        (["recipes", "moco-v4"], "error: --recipe moco-v4: expected one of moco-v1-200ep"),
        (["protocols", "nothing"], "error: "),
        (["pretrain", "--recipe", "x", "--data", "d", "--out", "o"], "error: --recipe x: expected one of"),
        (["pretrain", "--recipe", "demo", "--data", "none", "--out", "o"], "error: --data none: expected a folder"),
        (["pretrain", "--recipe", "demo", "--data", ".", "--out", "o", "--arch", "vgg"], "error: --arch vgg: expected"),
        (
            ["bench", "--backbone", "random", "--data", "d", "--learning-rate", "3", "imagenet-linear"],
            "error: bench: expected the task first, `mocobench bench TASK --backbone PATH --data DIR`, found --backb",
        ),
        (
            ["bench", "imagenet-knn", "--backbone", "random", "--data", "d", "--engine", "embedded"],
            "error: unrecognized arguments: --engine embedded; see `mocobench bench imagenet-knn --help`",
        ),
        (
            [*KNN, "--on-bad-annotation", "skip"],
            "error: unrecognized arguments: --on-bad-annotation skip; see `mocobench bench imagenet-knn --help`",
        ),
        (
            [*KNN, "--from", "moco"],
            "error: --from: expected a checkpoint with it, found --backbone random; leave it out",
        ),
        (
            [*KNN, "--mean", "0,0,0"],
            "error: --mean: expected a checkpoint with it, found --backbone random; leave it out",
        ),
        (
            ["bench", "imagenet-knn", "--backbone", "x", "--data", ".", "--arch", "resnet18"],
            "error: --arch resnet18: expected --backbone random with it, found a file, which says its own",
        ),
        (["inspect", "x", "--std", "1,1,1"], "error: --mean and --std: expected both or neither, found one"),
        (["inspect", "x", "--mean", "0,0,0", "--std", "1,0,1"], "error: --std 1.0,0.0,1.0: expected numbers above 0"),
        (["inspect", "x", "--mean", "0,0"], "error: argument --mean: expected three numbers with commas between them"),
        ([*KNN, "--name", "v2"], "error: --name: expected a checkpoint with it, found --backbone random; leave it out"),
        *(
            (
                [*command, "--seed", seed],
                f"error: argument --seed: expected a whole number from 0 to 4294967295, found {seed}",
            )
            for command in (PRETRAIN, KNN, ["demo"], ["bench", "input-pipeline", "--data", "."])
            for seed in ("1" + 20 * "0", "-1")
        ),
        ([*PRETRAIN, "--workers", "-1"], "error: argument --workers: expected a whole number from 0, found -1"),
        ([*PRETRAIN, "--keep-every", "x"], "error: argument --keep-every: expected a whole number from 0, found x"),
        (
            [*PRETRAIN, "--checkpoint-minutes", "x"],
            "error: argument --checkpoint-minutes: expected a number above 0, f",
        ),
        (
            [*PRETRAIN, "--knn-data", "x"],
            "error: --knn-data x: expected --knn-every with it, found none; add --knn-every",
        ),
        ([*PRETRAIN, "--learning-rate", "nan"], "error: --learning-rate nan: expected a number above zero"),
        (
            ["bench", "input-pipeline", "--data", ".", "--rate", "nan"],
            "error: argument --rate: expected a number above 0",
        ),
        (
            ["bench", "pretrain-cost", "--batch-sizes", "2,,4"],
            "error: argument --batch-sizes: expected a whole number from 1, found none",
        ),
        ([*PRETRAIN, "--lr", "1"], "error: unrecognized arguments: --lr 1; see `mocobench pretrain --help`"),
        (["--fast"], "error: unrecognized arguments: --fast; see `mocobench --help`"),
        (
            ["bench"],
            "error: the following arguments are required: --backbone, --data, TASK; see `mocobench bench --help`",
        ),
        (["inspect", "missing.pth"], "error: missing.pth: "),
        (["convert", "missing.pth", "out.pkl", "--to", "detectron2"], "error: missing.pth: "),
        (
            ["bench", "imagenet-lineal", "--backbone", "random", "--data", "."],
            "error: task imagenet-lineal: expected one of coco-detection, imagenet-knn, imagenet-linear, "
            "imagenet-semi, voc-detection, voc-svm, input-pipeline, pretrain-cost\n",
        ),
        (
            ["bench", "imagenet-knn", "--backbone", "random", "--data", ".", "--protocol", "big"],
            "error: --protocol big: expected one of paper, smoke",
        ),
        (["bench", "imagenet-knn", "--backbone", "random", "--data", "none"], "error: --data none: expected a folder"),
        (
            ["bench", "voc-detection", "--backbone", "random", "--data", ".", "--engine", "detectron2"],
            "error: --",  # no Detectron2, or no data
        ),
        ([*VOC, "--visualize", "2"], "error: --visualize 2: expected a folder for the pictures, found none; add --out"),
        ([*VOC, "--trials", "0"], "error: argument --trials: expected a whole number from 1, found 0; see "),
        (
            [*VOC, "--images-per-pass", "two"],
            "error: argument --images-per-pass: expected a whole number from 1, found two",
        ),
        ([*VOC, "--detector", "x", "--trials", "2"], "error: --detector: expected no --trials with it, found both"),
        (
            [*VOC, "--fewer-devices", "3"],
            "error: --fewer-devices 3: expected a divisor of the batch size, found 3 for 16",
        ),
        ([*VOC, "--resume", "maybe"], "error: argument --resume: invalid choice: 'maybe'"),
        (["report", "none"], "error: none: expected"),
        (["report", ".", "--format", "pdf"], "error: --format pdf"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_the_user_can_mend_is_one_line_and_status_2(arguments, message, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(message)
    assert captured.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    finished = run_cli("inspect", str(tmp_path / "missing"), "--debug")
    assert finished.returncode == 1
    assert "Traceback" in finished.stderr


@pytest.mark.parametrize(("flags", "symmetric"), [([], False), (["--symmetric"], True), (["--no-symmetric"], False)])
def test_symmetric_is_a_setting_of_the_recipe(flags: list[str], symmetric: bool, monkeypatch, capsys) -> None:
    runs: list[Any] = []
    monkeypatch.setattr("pretrain.train.pretrain", runs.append)
    assert main([*PRETRAIN, *flags]) == 0
    assert runs[0].recipe.symmetric == symmetric
    assert ("changed: symmetric: False -> True\n" in capsys.readouterr().out) == symmetric


@pytest.mark.parametrize("arguments", [["recipes"], ["recipes", "demo"]], ids=["much", "little"])
def test_a_reader_that_has_gone_is_no_error(arguments: list[str]) -> None:
    """As in `mocobench recipes | head -1`."""
    with subprocess.Popen([sys.executable, "-m", "mocobench", *arguments], stdout=-1, stderr=-1, text=True) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        run.stdout.close()
        assert run.stderr.read() == ""
    assert run.returncode == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", [["recipes"], ["recipes", "demo"]], ids=["much", "little"])
def test_output_to_a_full_disk_is_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        run = subprocess.run([sys.executable, "-m", "mocobench", *arguments], stdout=full, stderr=-1, text=True)
    place = "standard output or a file (--debug shows where)"
    assert (run.returncode, run.stderr) == (2, f"error: {place}: the system says No space left on device\n")


def test_what_the_system_refuses_is_one_line(tmp_path: Path, monkeypatch, capsys) -> None:
    def refuse(*args, **kwargs) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "demo/data")

    monkeypatch.setattr("mocobench.demo.run_demo", refuse)
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "error: demo/data: the system says Permission denied\n"


def test_a_demo_of_another_seed_is_refused_before_anything_is_replaced(tmp_path: Path, monkeypatch, capsys) -> None:
    drawn = []
    monkeypatch.setattr("mocobench.demo.draw_world", lambda out, seed: drawn.append(seed))
    out = tmp_path / "demo"
    for _ in range(2):  # there is nothing to pretrain on
        assert main(["demo", "--out", str(out)]) == 2
        assert capsys.readouterr().err.startswith("error: the demo stopped in `mocobench pretrain --recipe demo ")
    assert main(["demo", "--out", str(out), "--seed", "1"]) == 2
    assert capsys.readouterr().err == (
        f"error: --out {out}: expected a new folder or the demo of seed 1, found that of seed 0; name another folder\n"
    )
    assert drawn == [0, 0]


def test_settings_of_a_task_are_flags() -> None:
    argv = ["bench", "voc-detection", "--backbone", "random", "--data", "d", "--train-short-sides", "96,128"]
    args = build_parser(argv).parse_args([*argv, "--learning-rate", "0.01", "--no-masks"])
    assert (args.train_short_sides, args.learning_rate, args.masks) == ((96, 128), 0.01, False)
    assert args.iterations is None


def test_how_a_detection_runs_is_no_setting_of_its_protocol() -> None:
    flags = ["--images-per-pass", "2", "--fewer-devices", "8", "--resume", "never", "--checkpoint-every", "9"]
    argv = [*VOC, *flags, "--trials", "5"]
    args = build_parser(argv).parse_args(argv)
    assert (args.images_per_pass, args.fewer_devices, args.resume) == (2, 8, "never")
    assert (args.checkpoint_every, args.trials, args.visualize) == (9, 5, 0)
    names = settings_of(load_task("voc-detection").PROTOCOLS["paper"])
    assert not names.keys() & {"images_per_pass", "fewer_devices", "resume", "checkpoint_every", "visualize"}


def test_protocols_state_every_value(capsys) -> None:
    assert main(["protocols", "voc-detection"]) == 0
    text = capsys.readouterr().out
    for line in (
        "voc-detection/moco-c4-24k@1",
        "voc-detection/smoke@1",
        "iterations",
        "decay_iterations",
        "18000,22000",
    ):
        assert line in text
