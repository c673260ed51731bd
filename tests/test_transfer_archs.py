"""Architectures: their names, what shapes tell of them, and that they are torchvision's and the projects' own."""

import pytest
import torch
from torch import nn
from torchvision import models

from mocobench.runtime.errors import UserError
from tests.transfer_examples import narrow_resnets
from transfer.arch import DEPTHS, STEMS, Arch, deduce_arch, make_resnet, parse_arch
from transfer.backbone import expected_shapes
from transfer.features import TORCHVISION, features

NAMES = (
    *(f"resnet{depth}" for depth in DEPTHS),
    "wide_resnet50_2",
    "wide_resnet101_2",
    "resnet50w2",
    "resnet50w5",
    "resnet18-cifar",
    "resnet50-cifar-pad2",
    "resnet34-cifar-linear",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_and_the_shapes_it_stands_for_give_each_other(name: str) -> None:
    arch = parse_arch(name)
    assert arch.name == name
    assert deduce_arch(expected_shapes(name), arch.stem_name or "-cifar") == arch


@pytest.mark.parametrize("name", ["resnet50", "resnet152", "wide_resnet50_2", "wide_resnet101_2"])
def test_shapes_are_torchvisions(name: str) -> None:
    with torch.device("meta"):
        theirs = models.get_model(name, weights=None).state_dict()
    assert expected_shapes(name) == {n: tuple(t.shape) for n, t in theirs.items() if not n.startswith("fc.")}


def test_channels_that_no_network_has_are_said_in_words() -> None:
    shapes = dict(expected_shapes("resnet18")) | {"conv1.weight": (64 * 28, 3, 7, 7)}
    assert deduce_arch(shapes, "-cifar") == "1792 and 64 channels in the first convolutions"


def test_a_wide_network_is_wide_everywhere() -> None:
    """SwAV's resnet50w2: twice the channels in every layer, 94 million parameters (its README)."""
    narrow, wide = expected_shapes("resnet50"), expected_shapes("resnet50w2")
    for name, shape in narrow.items():
        doubled = tuple(2 * size if axis < 2 and size != 3 else size for axis, size in enumerate(shape))
        assert wide[name] == (doubled if name != "conv1.weight" else (128, 3, 7, 7)), name
    learned = sum(torch.Size(s).numel() for n, s in wide.items() if n.endswith((".weight", ".bias")))
    assert 93e6 < learned < 95e6
    assert parse_arch("resnet50w2").feature_size == 4096


@pytest.mark.parametrize("name", ["resnet19", "wide_resnet18_2", "resnet50w1", "resnext50", "resnet50-tiny", ""])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(
        UserError, match=r"expected the name of a ResNet, such as resnet50, .*18, 34, 50, 101, 152 layers"
    ):
        parse_arch(name)


@pytest.mark.parametrize(
    "name", ["resnet50w2", "wide_resnet50_2", "resnet18-cifar", "resnet18-cifar-pad2", "resnet18-cifar-linear"]
)
def test_the_network_and_the_features_from_names_agree(name: str) -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with narrow_resnets():
        network = make_resnet(parse_arch(name)).eval()
    stem = parse_arch(name).stem
    with torch.inference_mode():
        expected = network(images)
    found = features(network.state_dict(), TORCHVISION, images, stem=stem)["pooled"]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_the_stem_for_small_pictures_is_solo_learns_and_moco_demos() -> None:
    resnet = models.resnet18()
    for suffix, padding in (("-cifar", 1), ("-cifar-pad2", 2)):
        resnet.conv1 = nn.Conv2d(3, 64, 3, 1, padding, bias=False)
        resnet.maxpool = nn.Identity()
        stem = STEMS[suffix]
        ours = make_resnet(Arch(18, stem_name=suffix))
        assert (stem.kernel, stem.stride, stem.padding, stem.has_max_pool) == (3, 1, padding, False)
        assert str(ours.conv1) == str(resnet.conv1)
        assert isinstance(ours.maxpool, nn.Identity)


def test_the_linear_stem_hands_on_what_its_bn_gives() -> None:
    with narrow_resnets():
        network = make_resnet(Arch(18, stem_name="-cifar-linear")).eval()
    nn.init.constant_(network.get_submodule("bn1").bias, -0.5)  # mostly below zero, so that a ReLU would show
    first = nn.Sequential(*(network.get_submodule(name) for name in ("conv1", "bn1")))
    rest = nn.Sequential(*(network.get_submodule(f"layer{n}") for n in (1, 2, 3, 4)))
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = rest(first(images))
        torch.testing.assert_close(network(images), expected.mean(dim=(2, 3)))
        with_relu = rest(first(images).relu())
    assert (expected - with_relu).abs().max() > 0.01 * expected.abs().max()
    found = features(network.state_dict(), TORCHVISION, images, stem=STEMS["-cifar-linear"])["layer4"]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
