"""Ctrl-C and a scheduler's request to end: one line that says how to go on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tiny_pretraining import draw_pictures

from mocobench.cli import entry_point, main


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


def test_an_interrupted_demo_ends_as_interrupted(tmp_path: Path, monkeypatch, capsys) -> None:
    def interrupt(*args, **kwargs) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mocobench.demo.draw_world", lambda *args, **kwargs: None)
    monkeypatch.setattr("pretrain.train.pretrain", interrupt)
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 130
    assert capsys.readouterr().err == "interrupted; no checkpoint yet\n"
