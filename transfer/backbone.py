"""Backbone: ResNet weights under canonical names, with everything needed to use them rightly.

Canonical names are torchvision's ResNet names without the classifier: `conv1.weight`, `bn1.running_mean`,
`layer1.0.downsample.0.weight`, ... Values are float32, BN counters int64.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache, cached_property
from types import MappingProxyType
from typing import Any

import torch

from mocobench.runtime.errors import UserError
from transfer.arch import make_resnet, parse_arch


@dataclass(frozen=True)
class InputSpec:
    """The input convention that weights were trained with.

    A pixel is prepared as (pixel - mean) / std, channels in `channel_order`, values from 0 to `max_value`;
    `mean` and `std` are in those units and in that channel order.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channel_order: str = "RGB"
    max_value: float = 1.0

    def __post_init__(self) -> None:
        if self.channel_order not in ("RGB", "BGR") or self.max_value <= 0 or min(self.std) <= 0:
            raise ValueError(f"not an input convention: {self}")

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """Prepare RGB images (..., 3, H, W) with values in [0, 1] for the network."""
        if self.channel_order == "BGR":
            images = images.flip(-3)
        mean = images.new_tensor(self.mean).view(3, 1, 1)
        std = images.new_tensor(self.std).view(3, 1, 1)
        return (images * self.max_value - mean) / std

    def to_text(self) -> str:
        """The convention for people."""
        mean, std = (" ".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        return f"{self.channel_order}, values 0 to {self.max_value:g}, mean {mean}, std {std}"

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "InputSpec":
        return InputSpec(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})


# torchvision's and MoCo's convention (PROTOCOLS section 1: to [0, 1], then normalised).
IMAGENET_RGB = InputSpec(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
# Pixels as they are, from 0 to 1.
UNIT_RGB = InputSpec(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Provenance:
    """Where weights came from, as far as the file says: its format, the method, epochs and recipe, and its hash.

    `encoder` names the one of several encoders that was chosen, None for the one that the format's authors evaluate;
    `recipe_changes` says what the run set otherwise than its recipe, `num_images` on how many images it was trained,
    `stored_as` which half precision the file held the weights in, None for float32.
    """

    source: str
    format: str
    encoder: str | None = None
    method: str | None = None
    epochs: int | None = None
    recipe: str | None = None
    recipe_changes: str | None = None
    num_images: int | None = None
    seed: int | None = None
    file_sha256: str | None = None
    stored_as: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "Provenance":
        known = {f.name for f in fields(Provenance)}
        return Provenance(**{name: value for name, value in values.items() if name in known})


@dataclass(frozen=True)
class Backbone:
    """A pretrained ResNet without a head.

    Raises on construction:
        UserError: a tensor is missing, unexpected, of the wrong shape or type, or not finite; all are listed.
    """

    arch: str
    tensors: dict[str, torch.Tensor]
    input: InputSpec
    provenance: Provenance
    stride_in_1x1: bool = field(default=False)

    def __post_init__(self) -> None:
        check_tensors(self.arch, self.tensors, self.provenance.source)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the function: arch, input convention, stride and tensors, without BN's batch counters.

        The same weights have the same digest in every file format.
        """
        sha = hashlib.sha256()
        header = {"arch": self.arch, "input": self.input.to_dict(), "stride_in_1x1": self.stride_in_1x1}
        sha.update(json.dumps(header, sort_keys=True).encode())
        for name in sorted(self.tensors):
            if not is_counter(name):
                tensor = self.tensors[name].contiguous()
                sha.update(f"{name}{tuple(tensor.shape)}".encode())
                sha.update(tensor.view(-1).numpy().data)
        return sha.hexdigest()

    @property
    def feature_size(self) -> int:
        """Channels of the pooled feature: 512 or 2048, more in wide networks."""
        return parse_arch(self.arch).feature_size


def is_counter(name: str) -> bool:
    """BN's `num_batches_tracked`: kept when present, never needed."""
    return name.endswith(".num_batches_tracked")


def is_variance(name: str) -> bool:
    """BN's `running_var`: never negative; zero, by underflow, where a channel is always off."""
    return name.endswith(".running_var")


@cache
def expected_shapes(arch: str) -> Mapping[str, tuple[int, ...]]:
    """Canonical names and shapes of an architecture, BN counters included.

    Raises:
        UserError: it is no ResNet's name.
    """
    with torch.device("meta"):
        network = make_resnet(parse_arch(arch))
    return MappingProxyType({name: tuple(tensor.shape) for name, tensor in network.state_dict().items()})


# What is wrong with tensors -> what to do
ADVICE = {
    "missing": "name a checkpoint of the whole network",
    "unexpected": "name a checkpoint of a ResNet without further layers",
    "of another shape": "name a checkpoint of a ResNet of torchvision's shapes",
    "of another type": "save the weights as float32 or in half precision",
    "not finite": "take an earlier checkpoint",
    "of negative variance": "take an earlier checkpoint",
}


def check_tensors(arch: str, tensors: dict[str, torch.Tensor], source: str) -> None:
    """Check names, shapes, types and finiteness against the architecture.

    Raises:
        UserError: what is missing, unexpected or wrong, with the first few names of each kind.
    """
    shapes = expected_shapes(arch)
    faults = {
        "missing": [name for name in shapes if name not in tensors and not is_counter(name)],
        "unexpected": [name for name in tensors if name not in shapes],
    }
    known = {name: t for name, t in tensors.items() if name in shapes}
    faults["of another shape"] = [
        f"{name} {tuple(t.shape)}, not {shapes[name]}" for name, t in known.items() if tuple(t.shape) != shapes[name]
    ]
    kinds = {name: torch.int64 if is_counter(name) else torch.float32 for name in known}
    faults["of another type"] = [
        f"{name} {t.dtype}, not {kinds[name]}" for name, t in known.items() if t.dtype != kinds[name]
    ]
    faults["not finite"] = [name for name, t in known.items() if not _is_finite(t)]
    faults["of negative variance"] = [name for name, t in known.items() if is_variance(name) and (t < 0).any()]
    found = {kind: f"{len(names)} {kind} ({_first_few(names)})" for kind, names in faults.items() if names}
    if found:
        advice = ADVICE[next(iter(found))]
        raise UserError(f"{source}: expected the tensors of a {arch}, found {', '.join(found.values())}; {advice}")


def _is_finite(tensor: torch.Tensor) -> bool:
    # A sum is finite only if every term is; it is many times cheaper than looking at each, so that comes second.
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def _first_few(names: list[str], count: int = 3) -> str:
    more = f", ... {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
