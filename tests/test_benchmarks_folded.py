"""The folded network: BN in a convolution by hand, and the same features as the network that it is folded from."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks.classification.folded import fold, fold_resnet, pool
from mocobench.runtime.errors import UserError
from tests.transfer_examples import narrow_resnets, trained_tensors
from transfer.arch import DEPTHS, STEMS
from transfer.backbone import IMAGENET_RGB, Backbone, Provenance
from transfer.network import build_network

ARCHS = [f"resnet{depth}{stem}" for depth in DEPTHS for stem in STEMS] + ["wide_resnet50_2", "resnet50w2"]


def backbone(arch: str) -> Backbone:
    return Backbone(arch, trained_tensors(arch), IMAGENET_RGB, Provenance("a", "b"))


def require_equal_features(of: Backbone, size: int) -> None:
    images = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(1))
    network = build_network(of)
    with torch.no_grad():
        expected, found = network(images), fold_resnet(network, precision="fp32")(images)
    assert found.dtype == torch.float32
    assert expected.std() > 0
    assert ((found - expected).norm() / expected.norm()).item() < 1e-4


def test_a_convolution_and_bn_by_hand() -> None:
    conv, bn = nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1, eps=0.0).eval()
    for tensor, value in ((conv.weight, 3.0), (bn.weight, 5.0), (bn.bias, 7.0)):
        nn.init.constant_(tensor, value)
    assert bn.running_mean is not None
    assert bn.running_var is not None
    bn.running_mean.fill_(2.0)
    bn.running_var.fill_(4.0)
    with torch.no_grad():
        folded = fold(conv, bn, precision="fp32")
        # 5 (3 x - 2) / sqrt(4) + 7 = 7.5 x + 2
        assert (folded.weight.item(), folded.bias.item()) == (7.5, 2.0)
        x = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)
        assert folded(x).flatten().tolist() == [9.5, -5.5]


def test_a_grid_of_windows_by_hand() -> None:
    # Of 0 to 8 in rows of three: 0, 1, 3, 4 have the mean 2, and each step to the side adds 1, each step down 3.
    last_map = torch.arange(9.0).view(1, 1, 3, 3) * torch.tensor([1.0, 10.0]).view(1, 2, 1, 1)
    assert pool(last_map, 2).tolist() == [[2, 3, 5, 6, 20, 30, 50, 60]]
    assert pool(last_map, 3).tolist() == last_map.flatten(1).tolist()
    assert pool(last_map, 1).tolist() == [[4, 40]]


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_a_grid_is_the_average_pooling_of_the_plain_networks_last_map(arch: str) -> None:
    images = torch.rand(3, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with narrow_resnets():
        network = build_network(backbone(arch))
    maps: list[torch.Tensor] = []
    network.layer4.register_forward_hook(lambda module, inputs, output: maps.append(output))
    with torch.no_grad():
        network(images)
        found = {grid: fold_resnet(network, precision="fp32", grid=grid)(images) for grid in (1, 2)}
        whole = fold_resnet(network, precision="fp32")(images)
    (last_map,) = maps
    assert last_map.shape[2:] == (7, 7)
    expected = {1: last_map.mean(dim=(2, 3)), 2: nn.AvgPool2d(6, stride=1)(last_map).flatten(1)}
    for grid, features in expected.items():
        assert found[grid].shape == features.shape
        assert ((found[grid] - features).norm() / features.norm()).item() < 1e-4
    assert torch.equal(found[1], whole)
    # The mean of the four windows is near that of the map, and no two of them are alike.
    windows = found[2].view(3, -1, 4)
    assert ((windows.mean(dim=2) - found[1]).norm() / found[1].norm()).item() < 0.2
    assert not torch.equal(windows[..., 0], windows[..., 1])


def test_a_grid_larger_than_the_last_map_is_refused() -> None:
    with narrow_resnets():
        network = build_network(backbone("resnet18"))
    folded = fold_resnet(network, precision="fp32", grid=3)
    with (
        torch.no_grad(),
        pytest.raises(UserError, match=r"^--grid 3: expected .* found 2 x 2 of images of 64 x 64; use"),
    ):
        folded(torch.rand(1, 3, 64, 64))


def test_nan_is_not_hidden() -> None:
    with narrow_resnets():
        network = build_network(backbone("resnet50"))
    images = torch.rand(2, 3, 64, 64)
    images[1, 0, 30, 30] = torch.nan
    with torch.no_grad():
        found = fold_resnet(network, precision="fp32")(images)
    assert found[0].isfinite().all()
    assert found[1].isnan().any()


@pytest.mark.parametrize("arch", ARCHS)
def test_features_of_every_architecture(arch: str) -> None:
    with narrow_resnets():
        require_equal_features(backbone(arch), 32 if arch.endswith(tuple(STEMS)[1:]) else 64)


def test_features_of_a_resnet50_in_full_width() -> None:
    require_equal_features(backbone("resnet50"), 64)


def test_features_with_the_stride_in_the_1x1() -> None:
    require_equal_features(replace(backbone("resnet50"), stride_in_1x1=True), 64)


def test_bfloat16_is_near() -> None:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with narrow_resnets():
        network = build_network(backbone("resnet50"))
    with torch.no_grad():
        expected, found = network(images), fold_resnet(network, precision="bf16")(images)
    assert 1e-5 < ((found - expected).norm() / expected.norm()).item() < 2e-2
