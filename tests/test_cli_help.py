"""Help: instant, complete, and with every flag explained."""

import subprocess
import sys
import time

import pytest
from command_line import run_cli

from benchmarks.run import load_task, task_names
from mocobench.cli import build_parser, main
from mocobench.commands.bench_cost import COST_SUMMARIES

COMMANDS = ("demo", "doctor", "recipes", "pretrain", "inspect", "convert", "protocols", "bench", "report", "published")


@pytest.fixture
def wide_help(monkeypatch) -> None:
    """Help whose lines are broken nowhere."""
    monkeypatch.setenv("COLUMNS", "400")


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
