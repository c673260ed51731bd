"""Detectron2's names: the ones read off its own models, and the two directions undo each other."""

import pytest

from tests.transfer_examples import ARCHS
from transfer.backbone import expected_shapes
from transfer.detectron2_names import canonical_name, detectron2_name


@pytest.mark.parametrize(
    ("canonical", "detectron2"),
    [
        ("conv1.weight", "stem.conv1.weight"),
        ("bn1.running_var", "stem.conv1.norm.running_var"),
        ("layer1.0.downsample.0.weight", "res2.0.shortcut.weight"),
        ("layer1.0.downsample.1.bias", "res2.0.shortcut.norm.bias"),
        ("layer4.2.bn3.running_mean", "res5.2.conv3.norm.running_mean"),
    ],
)
def test_names_are_detectron2s(canonical: str, detectron2: str) -> None:
    assert detectron2_name(canonical) == detectron2


@pytest.mark.parametrize("arch", ARCHS)
def test_the_inverse_gives_every_name_back(arch: str) -> None:
    names = list(expected_shapes(arch))
    translated = [detectron2_name(name) for name in names]
    assert len(set(translated)) == len(names)
    assert [canonical_name(name) for name in translated] == names


@pytest.mark.parametrize("name", ["fc.weight", "layer1.weight", "layer1.0.fc.weight", "stem.conv1.weight"])
def test_a_foreign_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected the name of a ResNet's tensor"):
        detectron2_name(name)
