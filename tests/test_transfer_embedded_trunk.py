"""A converted Detectron2 file run by the embedded engine, under the file's own names, against the source."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.detection.embedded.resnet import ResNet, build_res5
from transfer.convert import convert
from transfer.load import load_backbone
from transfer.network import build_network

PICTURES = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))


class Trunk(nn.Module):
    """The embedded C4's backbone and the last stage that its heads hold, as one network."""

    def __init__(self) -> None:
        super().__init__()
        self.bottom = ResNet(outputs=("res4",), stride_in_1x1=False)
        self.res5 = build_res5(stride_in_1x1=False, extra_norm=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        (res4,) = self.bottom(images)
        features: torch.Tensor = self.res5(res4)
        return features.mean(dim=(2, 3))


def test_the_embedded_engine_runs_what_convert_wrote(
    tmp_path: Path, moco_content: Callable[..., dict[str, Any]]
) -> None:
    torch.save(moco_content("resnet50"), tmp_path / "in")
    convert(tmp_path / "in", tmp_path / "out.pkl", to="detectron2")
    written = pickle.loads((tmp_path / "out.pkl").read_bytes())["model"]
    trunk = Trunk().eval()
    own = {name if name.startswith("res5.") else f"bottom.{name}": torch.tensor(v) for name, v in written.items()}
    trunk.load_state_dict(own, strict=True)
    with torch.inference_mode():
        expected = build_network(load_backbone(tmp_path / "in"))(PICTURES)
        found = trunk(PICTURES)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
