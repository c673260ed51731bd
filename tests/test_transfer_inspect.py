"""What `mocobench inspect` says of a file, and what it warns of."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from transfer.backbone import IMAGENET_RGB, InputSpec
from transfer.convert import convert
from transfer.convert import to_text as conversion_text
from transfer.inspect import inspect, to_json, to_text

ResnetState = Callable[..., dict[str, torch.Tensor]]
MocoContent = Callable[..., dict[str, Any]]


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def test_a_moco_resnet50(tmp_path: Path, moco_content: MocoContent) -> None:
    found = inspect(saved(tmp_path / "moco.pth.tar", moco_content("resnet50")))
    assert (found["format"], found["arch"], found["stride"]) == ("moco", "resnet50", "3x3")
    assert found["num_tensors"] == 53 + 4 * 53 + 53
    # torchvision's ResNet-50 has 25,557,032 parameters, 2048 x 1000 + 1000 of them in the classifier.
    assert found["num_parameters"] == 25_557_032 - 2_049_000
    assert found["provenance"]["epochs"] == 200
    assert found["dropped"]["queue of keys"] == ["module.queue", "module.queue_ptr"]
    assert found["warnings"] == []
    assert json.loads(to_json(found)) == found


def test_the_text_says_it_all(tmp_path: Path, moco_content: MocoContent) -> None:
    found = inspect(saved(tmp_path / "moco.pth.tar", moco_content()))
    assert to_text(found).splitlines() == [
        str(tmp_path / "moco.pth.tar"),
        "  format      moco",
        "  encoder     query",
        "  backbone    resnet18, 120 tensors, 11,176,512 parameters",
        "  input       RGB, values 0 to 1, mean 0.485 0.456 0.406, std 0.229 0.224 0.225",
        "  stride      in the 3x3 convolutions of bottlenecks",
        "  method      MoCo, MLP head",
        "  epochs      200",
        "  origin      moco.pth.tar (moco)",
        f"  digest      {found['digest']}",
        f"  sha256      {found['sha256']}",
        "  dropped     4 projection head (module.encoder_q.fc.0.weight, ...)",
        "  dropped     124 key encoder (module.encoder_k.conv1.weight, ...)",
        "  dropped     2 queue of keys (module.queue, ...)",
        "  dropped     1 optimizer state (optimizer)",
    ]


def test_an_assumed_convention_says_so(tmp_path: Path, resnet_state: ResnetState) -> None:
    path = saved(tmp_path / "f", resnet_state())
    line = "  input       RGB, values 0 to 1, mean 0.485 0.456 0.406, std 0.229 0.224 0.225"
    assert f"{line}; assumed, for the file does not say (--mean and --std do)" in to_text(inspect(path)).splitlines()
    assert line in to_text(inspect(path, pixels=InputSpec(IMAGENET_RGB.mean, IMAGENET_RGB.std))).splitlines()
    convert(path, tmp_path / "own", to="torchvision")
    assert line in to_text(inspect(tmp_path / "own")).splitlines()


def test_statistics_as_they_start_are_a_warning(tmp_path: Path, resnet_state: ResnetState) -> None:
    state = resnet_state()
    for layer in ("bn1", "layer1.0.bn2"):
        state[f"{layer}.running_mean"].zero_()
        state[f"{layer}.running_var"].fill_(1)
    (warning,) = inspect(saved(tmp_path / "f", state))["warnings"]
    assert warning.startswith("2 of 20 BN layers have the statistics they start with (mean 0, variance 1), bn1 first")


def test_channels_that_are_always_off_are_a_warning(tmp_path: Path, resnet_state: ResnetState) -> None:
    state = resnet_state()
    state["bn1.running_var"][:3] = 0
    found = inspect(saved(tmp_path / "f", state))
    said = "3 channels of 1 BN layers have variance 0, bn1 first: they never changed in training"
    assert found["warnings"] == [said]
    assert f"  warning     {said}" in to_text(found)
    report = convert(tmp_path / "f", tmp_path / "out", to="safetensors")
    assert f"  warning  {said}" in conversion_text(report)
    assert json.loads((tmp_path / "out.json").read_text())["warnings"] == [said]


def test_statistics_without_a_count_are_a_warning(tmp_path: Path, resnet_state: ResnetState) -> None:
    state = resnet_state()
    state["layer4.0.bn1.num_batches_tracked"].zero_()
    (warning,) = inspect(saved(tmp_path / "f", state))["warnings"]
    assert warning == "1 BN counters are 0, though the statistics are not those BN starts with"


def test_classes_are_counted_and_a_classifier_of_another_network_is_a_warning(
    tmp_path: Path, resnet_state: ResnetState, moco_content: MocoContent
) -> None:
    state = resnet_state(num_classes=37)
    found = inspect(saved(tmp_path / "f", state))
    assert (found["num_classes"], found["warnings"]) == (37, [])
    assert "  classes     37, of the classifier" in to_text(found)
    found = inspect(saved(tmp_path / "g", state | {"fc.weight": torch.zeros(37, 2048)}))
    assert found["warnings"] == [
        "the classifier takes 2048 features, where a resnet18 makes 512: it belongs to another network"
    ]
    found = inspect(saved(tmp_path / "h", moco_content()))  # whose head is no classifier
    assert found["num_classes"] is None
    assert "  classes     " not in to_text(found)
