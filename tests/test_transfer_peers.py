"""Checkpoints made with the peers' own packages, and weights that those packages load: no names are imitated here.

They need the optional group `peers` (timm, transformers, lightly) and, outside it because its pins are old, solo-learn
with pytorch-lightning. A package that is missing is named.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

from transfer.backbone import is_variance
from transfer.convert import convert
from transfer.load import Loaded, load
from transfer.network import build_network

pytestmark = pytest.mark.peers

PICTURES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def as_trained(network: nn.Module) -> nn.Module:
    """The network in eval mode with norms that are all different."""
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.ndim == 1 and tensor.is_floating_point():
                positive = name.endswith(".weight") or is_variance(name)
                tensor.copy_(torch.rand_like(tensor) + (0.5 if positive else -0.5))
    return network.eval()


@torch.inference_mode()
def assert_same_function(loaded: Loaded, owner: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """The backbone against the network of the package that made the file."""
    expected = owner(PICTURES).flatten(1)
    found = build_network(loaded.backbone)(PICTURES)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("arch", ["resnet18", "resnet50", "wide_resnet50_2"])
def test_timm(tmp_path: Path, arch: str) -> None:
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    owner = as_trained(timm.create_model(arch, num_classes=0))
    save_file(owner.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = load(tmp_path / "model.safetensors")
    assert (loaded.format, loaded.backbone.arch) == ("timm", arch)
    assert_same_function(loaded, owner)
    convert(tmp_path / "model.safetensors", tmp_path / "out.safetensors", to="timm")
    again = timm.create_model(arch, num_classes=0, checkpoint_path=str(tmp_path / "out.safetensors")).eval()
    assert_same_function(loaded, again)


@pytest.mark.parametrize(
    ("layer_type", "width", "arch"),
    [("basic", 1, "resnet18"), ("basic", 2, "resnet18w2"), ("bottleneck", 1, "resnet50")],
)
def test_huggingface(tmp_path: Path, layer_type: str, width: int, arch: str) -> None:
    transformers = pytest.importorskip("transformers")
    first = (64 if layer_type == "basic" else 256) * width
    config = transformers.ResNetConfig(
        layer_type=layer_type,
        depths=[2, 2, 2, 2] if layer_type == "basic" else [3, 4, 6, 3],
        embedding_size=64 * width,
        hidden_sizes=[first, 2 * first, 4 * first, 8 * first],
    )
    classifier = as_trained(transformers.ResNetForImageClassification(config))
    owner = classifier.resnet
    for name, network in {"model": owner, "classifier": classifier}.items():
        network.save_pretrained(tmp_path / name)
        loaded = load(tmp_path / name / "model.safetensors")
        assert (loaded.format, loaded.backbone.arch) == ("huggingface", arch)
        assert_same_function(loaded, lambda x: owner(x).pooler_output)
    config.save_pretrained(tmp_path / "out")
    convert(tmp_path / "classifier" / "model.safetensors", tmp_path / "out" / "model.safetensors", to="huggingface")
    again, info = transformers.ResNetModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()), info
    assert_same_function(loaded, lambda x: again.eval()(x).pooler_output)


def saved_by_lightning(path: Path, make: Callable[[Any], Any]) -> tuple[Path, Any]:
    """A checkpoint of a LightningModule that holds what `make` gives, and the module."""
    lightning = pytest.importorskip("pytorch_lightning")
    module = make(lightning)
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path)
    return path, module


@pytest.mark.parametrize("backbone_of", ["torchvision", "lightly"])
def test_lightly_moco(tmp_path: Path, backbone_of: str) -> None:
    pytest.importorskip("lightly")
    from lightly.loss import NTXentLoss
    from lightly.models import ResNetGenerator
    from lightly.models.modules import MoCoProjectionHead

    def make(lightning: Any) -> Any:
        class MoCo(lightning.LightningModule):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                resnet = models.resnet18() if backbone_of == "torchvision" else ResNetGenerator("resnet-18")
                momentum = models.resnet18() if backbone_of == "torchvision" else ResNetGenerator("resnet-18")
                tail = [] if backbone_of == "torchvision" else [nn.AdaptiveAvgPool2d(1)]
                self.backbone = nn.Sequential(*list(resnet.children())[:-1], *tail)
                self.projection_head = MoCoProjectionHead(512, 512, 128)
                self.backbone_momentum = nn.Sequential(*list(momentum.children())[:-1], *tail)
                self.projection_head_momentum = MoCoProjectionHead(512, 512, 128)
                self.criterion = NTXentLoss(memory_bank_size=(64, 128))

        return as_trained(MoCo())

    path, module = saved_by_lightning(tmp_path / "last.ckpt", make)
    loaded = load(path)
    arch = "resnet18" if backbone_of == "torchvision" else "resnet18-cifar-linear"
    assert (loaded.format, loaded.backbone.arch, loaded.found.encoder) == ("lightly", arch, "backbone")
    assert_same_function(loaded, module.backbone)
    assert_same_function(load(path, encoder="momentum"), module.backbone_momentum)


@pytest.fixture
def solo_methods(monkeypatch: pytest.MonkeyPatch) -> Any:
    """solo-learn's methods; of pl_bolts, which no longer imports, it needs a learning-rate schedule's name only."""
    for name in ("pl_bolts", "pl_bolts.optimizers", "pl_bolts.optimizers.lr_scheduler"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["pl_bolts.optimizers.lr_scheduler"].LinearWarmupCosineAnnealingLR = None  # type: ignore[attr-defined]
    return pytest.importorskip("solo.methods")


@pytest.mark.parametrize("cifar", [False, True])
@pytest.mark.parametrize("saves_settings", [False, True])  # which solo-learn itself does not
def test_solo_learn_mocov2plus(tmp_path: Path, solo_methods: ModuleType, cifar: bool, saves_settings: bool) -> None:
    numbers = dict.fromkeys(("max_epochs", "batch_size", "accumulate_grad_batches", "num_large_crops"), 2)
    rates = dict.fromkeys(("lr", "weight_decay", "classifier_lr", "min_lr", "warmup_start_lr", "warmup_epochs"), 0.1)
    settings: dict[str, Any] = (
        numbers
        | rates
        | {
            "encoder": "resnet18",
            "num_classes": 10,
            "backbone_args": {"cifar": cifar},
            "optimizer": "sgd",
            "lars": False,
            "exclude_bias_n_norm": False,
            "extra_optimizer_args": {},
            "scheduler": "none",
            "num_small_crops": 0,
            "dataset": "cifar10" if cifar else "imagenet",
            "method": "mocov2plus",
            "base_tau_momentum": 0.99,
            "final_tau_momentum": 1.0,
            "momentum_classifier": False,
        }
    )

    def make(lightning: Any) -> Any:
        method = solo_methods.MoCoV2Plus(
            proj_output_dim=8, proj_hidden_dim=16, temperature=0.2, queue_size=16, **settings
        )
        if saves_settings:
            method.save_hyperparameters(settings)
        return as_trained(method)

    path, module = saved_by_lightning(tmp_path / "last.ckpt", make)
    loaded = load(path)
    arch = "resnet18-cifar-pad2" if cifar else "resnet18"
    assert (loaded.format, loaded.backbone.arch) == ("solo_learn", arch)
    assert loaded.backbone.provenance.method == ("mocov2plus" if saves_settings else None)
    assert (loaded.backbone.input.std == (0.247, 0.243, 0.261)) == cifar
    assumed = f"the data set is not known: {'CIFAR-10' if cifar else 'ImageNet'}'s mean and std are assumed"
    assert loaded.found.warnings == (() if saves_settings else (assumed,))
    assert_same_function(loaded, module.encoder)
    assert_same_function(load(path, encoder="momentum"), module.momentum_encoder)
