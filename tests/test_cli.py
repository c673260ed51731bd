"""The command line's contract: help is instant, errors are one line with status 2, nothing is half-written."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from tiny_pretraining import draw_pictures

from benchmarks.protocol import settings_of
from benchmarks.run import load_task, task_names
from mocobench.cli import build_parser, entry_point, main
from mocobench.commands.bench_cost import COST_SUMMARIES
from mocobench.doctor import PACKAGES

VOC = ["bench", "voc-detection", "--backbone", "random", "--data", "none", "--engine", "embedded"]
KNN = ["bench", "imagenet-knn", "--backbone", "random", "--data", "none"]
PRETRAIN = ["pretrain", "--recipe", "demo", "--data", ".", "--out", "o"]
COMMANDS = ("demo", "doctor", "recipes", "pretrain", "inspect", "convert", "protocols", "bench", "report", "published")


@pytest.fixture
def wide_help(monkeypatch) -> None:
    """Help whose lines are broken nowhere."""
    monkeypatch.setenv("COLUMNS", "400")


def run_cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mocobench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_help_lists_every_command_and_loads_no_torch() -> None:
    finished = run_cli("--help")
    assert finished.returncode == 0
    for command in COMMANDS:
        assert f"\n    {command} " in finished.stdout or f"\n    {command}\n" in finished.stdout


def test_help_is_instant() -> None:
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        run_cli("--help")
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.5


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


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_pretraining_says_from_where_it_goes_on(name: str, tmp_path: Path) -> None:
    """Ctrl-C, and what a scheduler sends before it kills."""
    data, out = draw_pictures(tmp_path / "images"), tmp_path / "out"
    sizes = "--arch resnet18 --image-size 16 --batch-size 4 --bn-groups 1 --queue-size 8 --epochs 99999 --workers 1"
    arguments = ["pretrain", "--recipe", "demo", "--data", str(data), "--out", str(out), *sizes.split()]
    command = [sys.executable, "-m", "mocobench", *arguments]

    def heed_interrupts() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # which a shell turns off in what it starts in the background

    options: dict[str, Any] = {"stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen(command, **options, preexec_fn=heed_interrupts) as run:
        while run.poll() is None and not (out / "checkpoint_last.pth.tar").exists():
            time.sleep(0.1)
        os.killpg(run.pid, getattr(signal, name))  # the workers too, as a terminal and a scheduler do
        try:
            _, said = run.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)  # or leaving this block would wait for ever
            raise
    assert said == f"interrupted; the same command goes on from {out}/checkpoint_last.pth.tar\n"
    assert run.returncode == 130
    assert not list(out.glob(".*"))


@pytest.mark.parametrize(("processes", "heeded"), [(None, True), ("1", True), ("2", False)])
def test_a_single_process_takes_a_request_to_end_as_ctrl_c(processes: str | None, heeded: bool, monkeypatch) -> None:
    """A group of one process, as `torchrun --nproc-per-node 1` says it, is a single process."""
    taken: list[Any] = []
    monkeypatch.setattr(signal, "signal", lambda *arguments: taken.append(arguments))
    monkeypatch.setattr(sys, "argv", ["mocobench", "--version"])
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if processes is not None:
        monkeypatch.setenv("WORLD_SIZE", processes)
    with pytest.raises(SystemExit):
        entry_point()
    assert taken == ([(signal.SIGTERM, signal.default_int_handler)] if heeded else [])


@pytest.mark.parametrize(("resume", "change"), [("auto", ""), ("never", " without `--resume never`")])
def test_an_interrupted_pretraining_names_a_command_that_is_not_refused(
    resume: str, change: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    def interrupted(run: Any) -> None:
        run.out.mkdir()
        (run.out / "checkpoint_last.pth.tar").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr("pretrain.train.pretrain", interrupted)
    out = tmp_path / "out"
    assert main(["pretrain", "--recipe", "demo", "--data", ".", "--out", str(out), "--resume", resume]) == 130
    said = f"interrupted; the same command{change} goes on from {out}/checkpoint_last.pth.tar\n"
    assert capsys.readouterr().err == said


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


def test_bench_shows_the_task_first_and_flags_where_they_are_used(wide_help, capsys) -> None:
    shown = {}
    for task in ("imagenet-knn", "voc-svm", "coco-detection", ""):
        with pytest.raises(SystemExit):
            main(["bench", *([task] if task else []), "--help"])
        shown[task] = capsys.readouterr().out
    for task, text in shown.items():
        about = load_task(task).SUMMARY if task else "Measure a backbone on one task; "
        usage = f"usage: mocobench bench {task or 'TASK'} --backbone PATH|random --data DIR [FLAGS]\n\n"
        assert text.startswith(usage + about)
    assert {task for task, text in shown.items() if "--engine" in text} == {"coco-detection"}
    assert {task for task, text in shown.items() if "--on-bad-annotation" in text} == {"voc-svm", "coco-detection"}


def test_help_of_bench_has_every_task_with_its_summary_and_loads_no_torch(wide_help) -> None:
    code = "import sys, mocobench.cli as c\ntry: c.main(['bench', '-h'])\nfinally: assert 'torch' not in sys.modules"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stderr) == (0, "")
    words = " ".join(finished.stdout.split())
    for task, summary in ({name: load_task(name).SUMMARY for name in task_names()} | COST_SUMMARIES).items():
        assert f" {task} {summary} " in words


@pytest.mark.parametrize(
    "argv",
    [[name] for name in COMMANDS] + [["bench", task] for task in (*task_names(), *COST_SUMMARIES)],
    ids=" ".join,
)
def test_every_flag_is_explained(argv: list[str]) -> None:
    commands = next(action for action in build_parser(argv)._actions if isinstance(action.choices, dict))
    assert isinstance(commands.choices, dict)
    actions = commands.choices[argv[0]]._actions
    assert not [action.option_strings or action.metavar for action in actions if not action.help]


def test_help_shows_the_value_of_each_setting(wide_help, capsys) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "imagenet-linear", "--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert "--epochs INT (100)" in words  # of paper
    assert "--max-steps INT (lbfgs: 5000)" in words


def test_an_interrupted_demo_ends_as_interrupted(tmp_path: Path, monkeypatch, capsys) -> None:
    def interrupt(*args, **kwargs) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mocobench.demo.draw_world", lambda *args, **kwargs: None)
    monkeypatch.setattr("pretrain.train.pretrain", interrupt)
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 130
    assert capsys.readouterr().err == "interrupted; no checkpoint yet\n"


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


def test_doctor_looks_at_every_package_that_the_project_needs() -> None:
    project = (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    needed = re.findall(r'^  "([\w-]+)>=[\d.]+",$', project[: project.index("[project.optional")], re.MULTILINE)
    assert set(needed) == set(PACKAGES)


BROKEN = {
    "torch/__init__.py": "raise OSError('libtorch_cpu.so: cannot open shared object file')",
    "torchvision/__init__.py": "raise RuntimeError('operator torchvision::nms does not exist')",
    "msgspec/__init__.py": "raise ImportError('no msgspec here')",
}


@pytest.mark.parametrize(
    ("file", "topic", "found"),
    [
        ("torch/__init__.py", "torch loads", "OSError: libtorch_cpu.so: cannot open shared object file"),
        (
            "torchvision/__init__.py",
            "engine embedded",
            "torchvision's operators do not load: RuntimeError: operator torchvision::nms does not exist",
        ),
        ("msgspec/__init__.py", "msgspec", None),
    ],
)
def test_doctor_outlives_what_it_looks_for(file: str, topic: str, found: str | None, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).write_text(BROKEN[file])
    places = os.pathsep.join([str(tmp_path), str(Path(__file__).resolve().parents[1])])
    command = [sys.executable, "-m", "mocobench", "doctor", "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": places})
    assert (run.returncode, run.stderr) == (0, "")
    findings = {finding["topic"]: finding for finding in json.loads(run.stdout)}
    if found is not None:
        assert findings[topic]["found"] == found
        assert not findings[topic]["is_fine"]
        assert findings[topic]["cost"]


def test_doctor_names_a_package_that_is_not_there(monkeypatch, capsys) -> None:
    def version(name: str) -> str:
        if name == "torch":
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr("mocobench.doctor.metadata.version", version)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["doctor"]) == 0
    assert re.search(
        r"^--  torch +not installed\n +costs: mocobench needs it: pip install torch$", capsys.readouterr().out, re.M
    )


def test_doctor_speaks_json(capsys) -> None:
    assert main(["doctor", "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    topics = {finding["topic"] for finding in findings}
    assert {"torch", "cuda", "engine embedded", "engine detectron2", "disk", "bf16 on cpu"} <= topics
    assert all(finding["is_fine"] or finding["cost"] for finding in findings)
