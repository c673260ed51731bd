"""The doctor: what it looks for, and that it outlives what it finds."""

import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from mocobench.cli import main
from mocobench.doctor import PACKAGES


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
