"""Every task on frozen features proves afterwards that not one of the backbone's tensors moved."""

from pathlib import Path

import pytest
import torch
from tiny_classification import PROTOCOLS, TASKS

from benchmarks.classification.features import FrozenBackbone
from benchmarks.context import RunContext
from transfer.network import random_backbone

CONTEXT = RunContext(seed=0, device=torch.device("cpu"), precision="fp32", num_workers=0)


@pytest.mark.parametrize("task", [name for name in TASKS if name != "semi"])
@pytest.mark.parametrize("moved", ["network", "folded"])
def test_a_tensor_that_moves_is_noticed(
    task: str, moved: str, bright_and_dark: Path, voc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = FrozenBackbone.features

    def features(self: FrozenBackbone, images: torch.Tensor) -> torch.Tensor:
        found = compute(self, images)
        tensor = self.network.bn1.running_mean if moved == "network" else next(self.folded.tensors())
        tensor[(0,) * tensor.ndim] += 0.5
        return found

    monkeypatch.setattr(FrozenBackbone, "features", features)
    name = r"bn1\.running_mean" if moved == "network" else "tensor 0 of the folded network"
    with pytest.raises(AssertionError, match=f"{name} moved although the backbone is frozen"):
        TASKS[task](random_backbone("resnet18", 0), voc if task == "svm" else bright_and_dark, PROTOCOLS[task], CONTEXT)
