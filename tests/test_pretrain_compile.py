"""`--compile`: the encoders run as compiled, and nothing else is different."""

import json
from collections.abc import Callable
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_pretraining import assert_same_state, draw_pictures, load, make_run, make_tiny_encoder
from torch import nn

from mocobench.cli import main
from pretrain.train import pretrain


@pytest.fixture
def compiled_graphs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every graph that is compiled, by a back end that runs it as it is; the real one takes half a minute."""
    graphs: list[Any] = []

    def keep(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        del inputs
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend=keep))
    return graphs


def test_a_compiled_run_ends_as_a_plain_one(
    bright_and_dark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled_graphs: list[Any]
) -> None:
    monkeypatch.setattr("pretrain.methods.make_encoder", make_tiny_encoder)
    images = draw_pictures(tmp_path / "images")
    monitored = {"knn_every": 1, "knn_data": bright_and_dark}
    plain = pretrain(make_run(images, tmp_path / "plain", **monitored))
    assert not compiled_graphs
    compiled = pretrain(make_run(images, tmp_path / "compiled", compile=True, **monitored))
    assert len(compiled_graphs) >= 2  # of the two encoders
    assert_same_state(load(compiled), load(plain))
    records = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("plain", "compiled")]
    assert [record["sessions"][0]["compile"] for record in records] == [False, True]
    accuracies = [
        [json.loads(line)["knn_top1"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("plain", "compiled")
    ]
    assert accuracies[0] == accuracies[1]


def test_no_compiler_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    arguments = ["pretrain", "--recipe", "demo", "--data", str(tmp_path), "--out", str(tmp_path / "run")]
    assert main([*arguments, "--device", "cpu", "--compile"]) == 2
    message = "error: --compile: expected the C++ compiler no-such-compiler, found none; install it, or leave --compile"
    assert capsys.readouterr().err.startswith(message)
