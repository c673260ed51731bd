"""The example of a new task in docs/classification.md is a task, by being a file."""

import json
import re
import sys
from pathlib import Path

import pytest

import benchmarks.tasks
from benchmarks.result import read_result
from benchmarks.run import load_task, task_names
from mocobench.cli import main

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "classification.md"


@pytest.fixture
def with_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "imagenet_centroid.py").write_text(code, encoding="utf-8")
    monkeypatch.setattr(benchmarks.tasks, "__path__", [*benchmarks.tasks.__path__, str(tmp_path / "tasks")])
    monkeypatch.delitem(sys.modules, "benchmarks.tasks.imagenet_centroid", raising=False)


def test_the_example_is_a_task(with_the_example: None, bright_and_dark: Path, tmp_path: Path, capsys) -> None:
    assert "imagenet-centroid" in task_names()
    assert {"paper", "smoke"} <= load_task("imagenet-centroid").PROTOCOLS.keys()
    command = ["bench", "imagenet-centroid", "--protocol", "smoke", "--backbone", "random", "--arch", "resnet18"]
    command += ["--data", str(bright_and_dark), "--image-size", "32", "--test-resize", "36", "--workers", "0"]
    folders = ["--results", str(tmp_path / "results"), "--features", str(tmp_path / "features")]
    assert main([*command, *folders, "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert "hardest classes: " in capsys.readouterr().out
    (path,) = (tmp_path / "results").iterdir()
    result = read_result(path)
    assert result.metrics == {"top1": 100.0}
    assert result.protocol.differs == ("image_size: 112 -> 32", "test_resize: 128 -> 36")
    assert json.loads(path.read_text())["details"]["per_class"]["dark"]["images"] == 3
    assert len(list((tmp_path / "features").iterdir())) == 2
    assert (tmp_path / "out" / "confusion.png").exists()
    # Without a word of the task about it, its folder is its own.
    again = [*command, "--seed", "1", *folders, "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(again) == 2
    assert "found backbone " in capsys.readouterr().err
