"""Classification tasks that run out of memory, wherever it is: one line that says which flags take less."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_classification import PROTOCOLS, TASKS, tiny_network

from benchmarks.classification import fine_tuning
from benchmarks.context import RunContext
from mocobench.cli import build_parser
from mocobench.runtime.errors import UserError
from transfer.network import random_backbone

CONTEXT = RunContext(seed=0, device=torch.device("cpu"), precision="fp32", num_workers=0)
ON_THE_COMMAND_LINE = {
    "linear": "imagenet-linear",
    "lbfgs": "imagenet-linear",
    "knn": "imagenet-knn",
    "semi": "imagenet-semi",
    "svm": "voc-svm",
}


def fail(*arguments: Any, **keywords: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")


@pytest.mark.parametrize(
    ("task", "where", "what", "flags"),
    [
        ("linear", "folded.FoldedResNet._features", "features of 6 images at a time", ("--device", "--image-size")),
        ("linear", "heads.LinearHeads.step", "a step on 5 images", ("--batch-size", "--learning-rate")),
        ("knn", "folded.FoldedResNet._features", "features of 6 images at a time", ("--device", "--image-size")),
        ("knn", "knn.knn_predictions", "the neighbours of 6 images", ("--device",)),
        ("lbfgs", "logistic_probe.principal_axes", "logistic regression on 12 images", ("--device", "--protocol")),
        ("semi", "fine_tuning.F.cross_entropy", "a step at --bn-batch 3", ("--bn-batch", "--image-size")),
        ("semi", "semi.logits_of", "classifying 6 images at a time", ("--device", "--image-size")),
        ("svm", "folded.FoldedResNet._features", "features of 12 images at a time", ("--device", "--image-size")),
    ],
)
def test_a_step_that_takes_too_much_is_one_line(
    task: str, where: str, what: str, flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys, request
) -> None:
    data: Path = request.getfixturevalue("voc" if task == "svm" else "bright_and_dark")
    backbone = random_backbone("resnet18", 0)
    monkeypatch.setattr(fine_tuning, "build_network", tiny_network)
    monkeypatch.setattr(f"benchmarks.classification.{where}", fail)
    message = rf"^{re.escape(what)}: expected enough memory, found CUDA out of memory[^\n]*; [^\n]*{'.*'.join(flags)}"
    with pytest.raises(UserError, match=message) as caught:
        TASKS[task](backbone, data, PROTOCOLS[task], CONTEXT)
    argv = ["bench", ON_THE_COMMAND_LINE[task], "--help"]
    capsys.readouterr()
    with pytest.raises(SystemExit):
        build_parser(argv).parse_args(argv)
    said = capsys.readouterr().out
    assert all(flag in said for flag in re.findall(r"--[a-z-]+", str(caught.value)))


def test_features_that_memory_cannot_hold_may_be_kept_in_a_file(
    bright_and_dark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.classification.extraction._Pass.shape", (2**40, 2**12))
    with pytest.raises(UserError, match=r"^val features of 6 images: expected enough memory, .*; keep them in --feat"):
        TASKS["knn"](random_backbone("resnet18", 0), bright_and_dark, PROTOCOLS["knn"], CONTEXT)
