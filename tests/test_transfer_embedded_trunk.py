"""A converted Detectron2 file run by the embedded engine, under the file's own names: a witness of the conversion."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.detection.embedded_trunk import run_by_embedded_engine
from mocobench.cli import main
from mocobench.runtime.errors import UserError
from transfer.convert import convert
from transfer.features import STAGES
from transfer.load import Loaded, load
from transfer.network import build_network

MocoContent = Callable[..., dict[str, Any]]
PICTURES = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, moco_content: MocoContent) -> Path:
    path = tmp_path_factory.mktemp("source") / "in"
    torch.save(moco_content("resnet50"), path)
    return path


def test_the_command_has_the_embedded_engine_run_what_it_wrote(tmp_path: Path, source: Path) -> None:
    assert main(["convert", str(source), str(tmp_path / "out.pkl"), "--to", "detectron2"]) == 0
    differences = json.loads((tmp_path / "out.pkl.json").read_text())["proof"]["differences"]
    assert tuple(differences["by the embedded engine"]) == STAGES
    found = run_by_embedded_engine(load(tmp_path / "out.pkl"), PICTURES)
    assert found is not None
    with torch.inference_mode():
        expected = build_network(load(source).backbone)(PICTURES)
    assert (found["pooled"] - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_other_formats_and_networks_are_not_the_engines(tmp_path: Path, moco_content: MocoContent) -> None:
    torch.save(moco_content("resnet18"), tmp_path / "in")
    convert(tmp_path / "in", tmp_path / "out.pkl", to="detectron2")
    assert run_by_embedded_engine(load(tmp_path / "in"), PICTURES) is None
    assert run_by_embedded_engine(load(tmp_path / "out.pkl"), PICTURES) is None


def test_a_witness_that_sees_another_network_stops_the_conversion(tmp_path: Path, source: Path) -> None:
    def other(loaded: Loaded, images: torch.Tensor) -> dict[str, torch.Tensor] | None:
        found = run_by_embedded_engine(loaded, images)
        return found and {stage: values * (1 + 2e-5 * (stage == "layer3")) for stage, values in found.items()}

    with pytest.raises(UserError, match=r"apart by a relative 2.*e-05 .* at layer3 by another; nothing was written"):
        convert(source, tmp_path / "out.pkl", to="detectron2", witnesses={"by another": other})
    assert list(tmp_path.iterdir()) == []
