"""Our checkpoints in the hands of the authors' code, and theirs in ours: its handling of keys, restated plainly."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from test_transfer_convert import official_content
from tiny_pretraining import load, make_run
from torch import nn
from torchvision.models import get_model

from pretrain.checkpoint import LAST, save_checkpoint
from pretrain.run import Progress
from pretrain.train import make_model
from transfer.load import load_backbone
from transfer.targets import detectron2 as detectron2_target

ARCH = "resnet18"


class AuthorsMoCo(nn.Module):
    """The names and shapes of the authors' model; it computes nothing here."""

    def __init__(self, dim: int, queue_size: int) -> None:
        super().__init__()
        self.encoder_q, self.encoder_k = (get_model(ARCH, weights=None, num_classes=dim) for _ in range(2))
        for encoder in (self.encoder_q, self.encoder_k):
            width = encoder.fc.weight.shape[1]
            encoder.fc = nn.Sequential(nn.Linear(width, width), nn.ReLU(), encoder.fc)
        self.register_buffer("queue", torch.randn(dim, queue_size))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))


def write_ours(folder: Path) -> tuple[dict[str, Any], nn.Module]:
    """A checkpoint of ours that was trained for a step, and its model."""
    run = make_run(folder, folder / "run", differing={"arch": ARCH})
    model, optimizer = make_model(run)
    model.encoder_q(torch.randn(4, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    save_checkpoint(run, data={}, progress=Progress(epoch=3), model=model, optimizer=optimizer)
    return load(run.out / LAST), model


def test_the_authors_linear_probe_takes_the_encoder_and_misses_the_classifier_alone(tmp_path: Path) -> None:
    content, model = write_ours(tmp_path)
    assert (content["epoch"], content["arch"]) == (3, ARCH)
    prefix = "module.encoder_q."
    taken = {
        key.removeprefix(prefix): tensor
        for key, tensor in content["state_dict"].items()
        if key.startswith(prefix) and not key.startswith(prefix + "fc")
    }
    probed = get_model(content["arch"], weights=None)
    missing, unexpected = probed.load_state_dict(taken, strict=False)
    assert (set(missing), unexpected) == ({"fc.weight", "fc.bias"}, [])
    probed.fc = model.encoder_q.fc  # so that the whole networks can be compared
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(probed.eval()(images), model.encoder_q.eval()(images))


def test_the_authors_converter_makes_what_ours_makes(tmp_path: Path) -> None:
    content, _ = write_ours(tmp_path)
    detectron2_target.write(load_backbone(tmp_path / "run" / LAST), tmp_path / "out.pkl")
    ours = pickle.loads((tmp_path / "out.pkl").read_bytes())["model"]
    theirs = official_content(content["state_dict"])["model"]
    assert {name for name in theirs if name not in ours} == {
        f"stem.fc.{layer}.{part}" for layer in (0, 2) for part in ("weight", "bias")
    }
    for name, array in ours.items():
        assert np.array_equal(array, theirs[name]), name


def test_the_authors_resume_takes_model_and_optimizer(tmp_path: Path) -> None:
    content, ours = write_ours(tmp_path)
    theirs = AuthorsMoCo(dim=128, queue_size=10)
    wrapped = nn.ModuleDict({"module": theirs})  # as under DistributedDataParallel
    wrapped.load_state_dict(content["state_dict"])
    optimizer = torch.optim.SGD(wrapped.parameters(), 0.03, momentum=0.9, weight_decay=1e-4)
    optimizer.load_state_dict(content["optimizer"])
    # After one step a weight's momentum is its gradient, with the decay of the weight before.
    gradients = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        velocity = optimizer.state[parameter].get("momentum_buffer")
        assert (velocity is None) == name.startswith("encoder_k"), name
        if velocity is not None:
            torch.testing.assert_close(velocity, gradients[name].grad, rtol=0, atol=1e-3)


def test_the_authors_checkpoint_is_read_and_fits_our_model(tmp_path: Path) -> None:
    theirs = AuthorsMoCo(dim=128, queue_size=10)
    state = nn.ModuleDict({"module": theirs}).state_dict()
    path = tmp_path / "checkpoint_0199.pth.tar"
    torch.save({"epoch": 200, "arch": ARCH, "state_dict": state, "optimizer": {}}, path)
    model, _ = make_model(make_run(tmp_path, tmp_path / "run", differing={"arch": ARCH}))
    model.load_state_dict({key.removeprefix("module."): tensor for key, tensor in state.items()})
    backbone = load_backbone(path)
    for key, tensor in backbone.tensors.items():
        assert torch.equal(tensor, state["module.encoder_q." + key]), key
