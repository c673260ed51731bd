"""A file of every layout of every source format, made from the layout itself, so that a new one joins the tests."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from transfer import arch as arch_module
from transfer.arch import make_resnet, parse_arch
from transfer.backbone import IMAGENET_RGB, Backbone, Provenance, expected_shapes, is_counter
from transfer.convert import target_formats
from transfer.layout import Layout
from transfer.load import source_formats

ARCHS = ("resnet18", "resnet34", "resnet50")
LAYOUTS: dict[str, Layout] = {
    f"{name}-{number}": layout
    for name, module in source_formats().items()
    for number, layout in enumerate(module.LAYOUTS)
}


@contextmanager
def narrow_resnets(width: int = 8) -> Iterator[None]:
    """ResNets of `width` channels where there are 64: the same names and rules in a fiftieth of the bytes or less."""
    expected_shapes.cache_clear()
    with mock.patch.object(arch_module, "BASE_WIDTH", width):
        yield
    expected_shapes.cache_clear()


def trained_tensors(arch: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """Canonical tensors in which no two BN tensors are alike, as after training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tensors = make_resnet(parse_arch(arch)).state_dict()
        for name, tensor in tensors.items():
            if is_counter(name):
                tensor.fill_(100 + seed)
            elif tensor.ndim == 1:
                tensor.copy_(torch.rand_like(tensor) + (0.5 if name.endswith((".weight", "_var")) else -0.5))
    return dict(tensors)


def has_small_stem(layout: Layout) -> bool:
    """Whether only networks with a 3x3 stem are in the layout: those that call a downsampling a shortcut."""
    return layout.names.blocks["downsample.0"] == "shortcut.0"


def write_example(path: Path, name: str) -> Path:
    """Write a file of the layout `name` of LAYOUTS; all its encoders are the same ResNet-18."""
    layout = LAYOUTS[name]
    tensors = trained_tensors("resnet18-cifar" if has_small_stem(layout) else "resnet18")
    if layout.containers == ("safetensors",):
        # What such a file says of itself is in its header, so the target that writes it makes the example.
        backbone = Backbone("resnet18", tensors, IMAGENET_RGB, Provenance("a", layout.format))
        target_formats()[layout.format].write(backbone, path)
    elif layout.containers == ("pickle",):
        path.write_bytes(pickle.dumps(_as_arrays(layout.example(tensors)) | {"__author__": "MOCO"}))
    else:
        torch.save(layout.example(tensors), path)
    return path


def _as_arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_arrays(item) for name, item in value.items()}
    return value.numpy()
