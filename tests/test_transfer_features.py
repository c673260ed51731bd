"""The ResNet that runs from a file's own names, and the difference that the proof measures."""

from collections.abc import Callable
from dataclasses import replace
from math import inf, nan
from pathlib import Path

import pytest
import torch
from torchvision import models

from mocobench.runtime.errors import UserError
from tests.transfer_examples import ARCHS
from transfer import verify
from transfer.backbone import IMAGENET_RGB, Backbone, InputSpec, Provenance
from transfer.features import DETECTRON2, TORCHVISION, features
from transfer.load import load
from transfer.network import build_network
from transfer.verify import difference, prove

ResnetState = Callable[..., dict[str, torch.Tensor]]

PICTURES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("arch", ARCHS)
def test_equals_torchvision(resnet_state: ResnetState, arch: str) -> None:
    state = resnet_state(arch)
    network = models.get_model(arch, weights=None, num_classes=10)
    network.load_state_dict(state)
    network.fc = torch.nn.Identity()
    with torch.inference_mode():
        expected = network.eval()(PICTURES)
    torch.testing.assert_close(features(state, TORCHVISION, PICTURES)["pooled"], expected, rtol=1e-5, atol=1e-6)


def test_equals_the_network_of_a_backbone_with_the_stride_in_the_1x1(resnet_state: ResnetState) -> None:
    tensors = {name: t for name, t in resnet_state("resnet50").items() if not name.startswith("fc.")}
    backbone = Backbone("resnet50", tensors, IMAGENET_RGB, Provenance("a", "b"), stride_in_1x1=True)
    with torch.inference_mode():
        expected = build_network(backbone)(PICTURES)
    found = features(tensors, TORCHVISION, PICTURES, stride_in_1x1=True)
    torch.testing.assert_close(found["pooled"], expected, rtol=1e-5, atol=1e-6)
    assert difference(expected, features(tensors, TORCHVISION, PICTURES)["pooled"]).relative > 1e-3


def test_names_decide_which_tensor_is_used(resnet_state: ResnetState) -> None:
    """A spelling under which two BN layers change places gives other features."""
    state = resnet_state("resnet18")
    swapped = {
        name.replace("bn1", "?").replace("bn2", "bn1").replace("?", "bn2") if name.startswith("layer") else name: t
        for name, t in state.items()
    }
    expected = features(state, TORCHVISION, PICTURES)["pooled"]
    assert difference(expected, features(swapped, TORCHVISION, PICTURES)["pooled"]).relative > 1e-3
    with pytest.raises(KeyError, match=r"stem\.conv1\.weight"):
        features(state, DETECTRON2, PICTURES)


def test_difference_by_hand() -> None:
    found = difference(torch.tensor([1.0, -4.0]), torch.tensor([1.5, -3.0]))
    assert (found.absolute, found.relative) == (1.0, 0.25)
    zero = torch.zeros(2)
    assert difference(zero, zero).relative == 0.0
    assert difference(zero, torch.ones(2)).relative == inf


def test_the_proof_sees_another_input_convention(tmp_path: Path, resnet_state: ResnetState) -> None:
    """The same tensors behind another mean are another function of the picture."""
    torch.save(resnet_state(), tmp_path / "weights.pth")
    source = load(tmp_path / "weights.pth")
    assert prove(source, source, witnesses={}).largest.absolute == 0.0
    other = InputSpec(mean=(0.5, 0.5, 0.5), std=IMAGENET_RGB.std)
    target = replace(source, found=replace(source.found, input=other), backbone=replace(source.backbone, input=other))
    with pytest.raises(UserError, match=r"weights\.pth: expected the same features after conversion to torchvision"):
        prove(source, target, witnesses={})


def test_a_proof_that_is_not_a_number_fails(
    tmp_path: Path, resnet_state: ResnetState, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(resnet_state(), tmp_path / "weights.pth")
    source = load(tmp_path / "weights.pth")
    monkeypatch.setattr(verify, "difference", lambda expected, found: verify.Difference(nan, nan))
    with pytest.raises(UserError, match="found them apart by a relative nan"):
        prove(source, source, witnesses={})
