"""What single formats say beside their names: options, statistics, data sets."""

import pickle
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mocobench.runtime.errors import UserError
from tests.transfer_examples import LAYOUTS, narrow_resnets, trained_tensors
from transfer.backbone import IMAGENET_RGB
from transfer.convert import target_formats
from transfer.inspect import inspect
from transfer.load import load
from transfer.network import build_network


@pytest.fixture(autouse=True)
def _narrow(request: pytest.FixtureRequest) -> Iterator[None]:
    if "detectron2" in request.keywords:  # which builds no narrow networks
        yield
        return
    with narrow_resnets():
        yield


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def example(name: str, arch: str = "resnet18") -> dict[str, Any]:
    return LAYOUTS[name].example(trained_tensors(arch))


def test_the_two_encoders_of_moco_are_told_apart(tmp_path: Path) -> None:
    state = example("moco-0")["state_dict"]
    key = trained_tensors("resnet18", seed=1)
    state |= {f"encoder_k.{name}": tensor for name, tensor in key.items()}
    path = saved(tmp_path / "f", {"state_dict": state})
    query_loaded, key_loaded = load(path), load(path, encoder="key")
    assert query_loaded.backbone.digest == load(path, encoder="query").backbone.digest
    assert torch.equal(key_loaded.backbone.tensors["bn1.weight"], key["bn1.weight"])
    assert not torch.equal(query_loaded.backbone.tensors["bn1.weight"], key["bn1.weight"])
    assert key_loaded.found.dropped["encoder_q.conv1.weight"] == "query encoder"
    assert query_loaded.found.dropped["encoder_k.conv1.weight"] == "key encoder"
    assert inspect(path, encoder="key")["encoder"] == "key"


def test_dino_with_its_options_and_either_network(tmp_path: Path) -> None:
    content = example("dino-0") | {"args": Namespace(arch="resnet50", epochs=100), "epoch": 100}
    path = saved(tmp_path / "f", content)
    assert load(path).found.dropped["student"] == "student encoder"
    assert load(path, encoder="student").found.dropped["teacher"] == "teacher encoder"
    assert load(path).backbone.provenance.epochs == 100


def test_lightning_counts_epochs_from_zero(tmp_path: Path) -> None:
    assert load(saved(tmp_path / "a", example("lightly-0") | {"epoch": 199})).backbone.provenance.epochs == 200
    assert load(saved(tmp_path / "b", example("moco-0") | {"epoch": 200})).backbone.provenance.epochs == 200


@pytest.mark.parametrize(("dataset", "mean"), [("cifar10", 0.4914), ("cifar100", 0.5071)])
def test_supcontrast_names_its_data_set(tmp_path: Path, dataset: str, mean: float) -> None:
    content = example("supcontrast-0", "resnet18-cifar") | {"opt": Namespace(dataset=dataset, method="SimCLR")}
    backbone = load(saved(tmp_path / "f", content)).backbone
    assert (backbone.input.mean[0], backbone.provenance.method) == (mean, "SimCLR")
    assert backbone.arch == "resnet18-cifar"


def test_an_input_convention_that_is_assumed_is_a_warning(tmp_path: Path) -> None:
    unknown = example("supcontrast-0", "resnet18-cifar") | {"opt": Namespace(dataset="path")}
    (warning,) = inspect(saved(tmp_path / "a", unknown))["warnings"]
    assert warning == "the data set is not known ('path'): CIFAR-10's mean and std are assumed"
    for arch, whose, mean in (("resnet18-cifar", "CIFAR-10", 0.4914), ("resnet18", "ImageNet", 0.485)):
        loaded = load(saved(tmp_path / "b", example("solo_learn-0", arch)))
        assert loaded.backbone.arch == arch.replace("cifar", "cifar-pad2")
        assert loaded.backbone.input.mean[0] == mean
        assert loaded.warnings == (f"the data set is not known: {whose}'s mean and std are assumed",)


@pytest.mark.parametrize(
    ("layout", "dataset", "mean", "std"),
    [
        ("solo_learn-0", "cifar10", 0.4914, 0.2616),
        ("solo_learn-0", "cifar100", 0.5071, 0.2762),
        ("solo_learn-1", "cifar10", 0.4914, 0.261),  # solo-learn 1.0.2 has CIFAR-10's for both
        ("solo_learn-1", "cifar100", 0.4914, 0.261),
    ],
)
@pytest.mark.parametrize("encoder", ["backbone", "momentum"])
def test_solo_learn_names_its_data_set(
    tmp_path: Path, layout: str, dataset: str, mean: float, std: float, encoder: str
) -> None:
    content = example(layout, "resnet18-cifar")
    content["hyper_parameters"] = {"data": {"dataset": dataset}, "method": "byol"}
    loaded = load(saved(tmp_path / "f", content), encoder=encoder)
    spec = loaded.backbone.input
    assert (spec.mean[0], spec.std[2], loaded.backbone.provenance.method) == (mean, std, "byol")
    assert loaded.warnings == ()


def test_solo_learn_has_a_7x7_stem_for_stl10_and_imagenet(tmp_path: Path) -> None:
    for dataset, mean in (("stl10", (0.4914, 0.4823, 0.4466)), ("imagenet100", (0.485, 0.456, 0.406))):
        loaded = load(saved(tmp_path / "f", example("solo_learn-0") | {"hyper_parameters": {"dataset": dataset}}))
        assert (loaded.backbone.input.mean, loaded.warnings) == (mean, ())


@pytest.mark.parametrize("name", ["torchvision-0", "moco-0", "lightly-0", "lightly-1", "openmmlab-0"])
def test_a_small_stem_without_a_convention_is_a_warning_until_it_states_one(tmp_path: Path, name: str) -> None:
    loaded = load(saved(tmp_path / "f", example(name, "resnet18-cifar")))
    assert loaded.warnings == ("3x3 stem: ImageNet's mean and std, and no max-pooling, are assumed",)
    target_formats()["safetensors"].write(loaded.backbone, tmp_path / "stated")
    stated = load(tmp_path / "stated")
    assert (stated.backbone.input, stated.warnings) == (IMAGENET_RGB, ())
    if name != "lightly-1":  # which has no other stem
        assert load(saved(tmp_path / "f", example(name))).warnings == ()


def test_projects_that_do_not_normalise_pixels(tmp_path: Path) -> None:
    for name in ("simclr-0", "simclr-1", "byol-1"):
        spec = load(saved(tmp_path / "f", example(name))).backbone.input
        assert (spec.mean, spec.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), name
    for name in ("byol-0", "byol-2", "barlow_twins-0", "vissl-0"):
        assert load(saved(tmp_path / "f", example(name))).backbone.input == IMAGENET_RGB, name


def caffe2_blobs(arch: str) -> dict[str, Any]:
    """The arrays of an MSRA pickle, with the solver's momenta, the classifier and the stem's bias."""
    blobs = {name: tensor.numpy() for name, tensor in LAYOUTS["msra-0"].example(trained_tensors(arch)).items()}
    return blobs | {"conv1_w_momentum": np.zeros(3, np.float32)}


@pytest.mark.parametrize("key", [None, "blobs"])
def test_msra_is_an_affine_map_of_bgr_pixels(tmp_path: Path, key: str | None) -> None:
    blobs = caffe2_blobs("resnet50")
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps({key: blobs} if key else blobs, protocol=2))
    loaded = load(tmp_path / "R-50.pkl")
    backbone = loaded.backbone
    assert (backbone.arch, backbone.stride_in_1x1) == ("resnet50", True)
    assert (backbone.input.channel_order, backbone.input.max_value, backbone.input.std) == ("BGR", 255.0, (1.0,) * 3)
    assert loaded.found.dropped["conv1_w_momentum"] == "optimizer state"
    assert loaded.found.dropped["fc1000_weight"] == "classifier"
    norm = build_network(backbone).get_submodule("layer1.0.bn1")
    x = torch.rand(1, 8, 2, 2)
    scale, shift = (torch.from_numpy(blobs[f"res2_0_branch2a_bn_{end}"]).view(1, -1, 1, 1) for end in "sb")
    torch.testing.assert_close(norm(x), x * scale + shift)


@pytest.mark.detectron2
def test_msra_as_detectron2_reads_and_runs_it(tmp_path: Path) -> None:
    """Detectron2 translates Caffe2's names itself; the trunk it then has is compared with ours.

    It puts a variance of 1 where the file has none, and its BN adds epsilon: 53 layers, each 5e-6 off Caffe2's affine
    map, which is ours. That is undone here, so that what is left is the names, the stride and the arithmetic.
    """
    pytest.importorskip("detectron2", reason="Detectron2 is not installed")
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.config import get_cfg
    from detectron2.layers import FrozenBatchNorm2d
    from detectron2.modeling import build_backbone

    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps(caffe2_blobs("resnet50"), protocol=2))
    cfg = get_cfg()
    cfg.MODEL.DEVICE, cfg.MODEL.RESNETS.OUT_FEATURES = "cpu", ["res5"]
    trunk = build_backbone(cfg).eval()
    DetectionCheckpointer(trunk).load(str(tmp_path / "R-50.pkl"))
    for module in trunk.modules():
        if isinstance(module, FrozenBatchNorm2d):
            assert (module.running_var == 1).all()
            module.running_var -= module.eps
    backbone = load(tmp_path / "R-50.pkl").backbone
    pictures = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        expected = trunk(backbone.input.prepare(pictures))["res5"].mean(dim=(2, 3))
        found = build_network(backbone)(backbone.input.prepare(pictures))
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_two_names_for_one_tensor_are_an_error(tmp_path: Path) -> None:
    state = trained_tensors("resnet18")
    path = saved(tmp_path / "f", state | {"module.bn1.weight": state["bn1.weight"]})
    with pytest.raises(UserError, match=r"expected each tensor once, found bn1\.weight under two names"):
        load(path)
