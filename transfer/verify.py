"""Proof that a conversion kept the function: the same features for the same pictures, before and after."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from mocobench.runtime.errors import UserError
from mocobench.runtime.seeds import torch_generator
from transfer.arch import parse_arch
from transfer.features import STAGES, features
from transfer.load import Loaded
from transfer.network import build_network

BATCH_SHAPE = (2, 3, 96, 96)
BATCH_SEED = 0
# Sums in another order move a feature by some 1e-6 of its size over fifty layers; a wrong tensor moves it by far more.
MAX_RELATIVE = 1e-5


@dataclass(frozen=True)
class Difference:
    """How far two feature matrices are apart: the largest absolute difference, and that over the largest feature."""

    absolute: float
    relative: float


@dataclass(frozen=True)
class Proof:
    """What was compared with the source's features, how far apart each stage was, on a batch of that shape and seed."""

    differences: Mapping[str, Mapping[str, Difference]]
    batch_shape: tuple[int, ...] = BATCH_SHAPE
    batch_seed: int = BATCH_SEED

    @property
    def by_stage(self) -> dict[str, Difference]:
        """The largest difference of all comparisons, for each stage."""
        return {
            stage: max((stages[stage] for stages in self.differences.values()), key=lambda d: d.relative)
            for stage in STAGES
        }

    @property
    def largest(self) -> Difference:
        """The largest difference of all comparisons and stages."""
        return max(self.by_stage.values(), key=lambda difference: difference.relative)

    def to_dict(self) -> dict[str, Any]:
        return {
            "batch_shape": list(self.batch_shape),
            "batch_seed": self.batch_seed,
            "max_relative_allowed": MAX_RELATIVE,
            "largest_absolute": self.largest.absolute,
            "largest_relative": self.largest.relative,
            "differences": {
                name: {stage: vars(difference) for stage, difference in stages.items()}
                for name, stages in self.differences.items()
            },
        }


# Gets a target as read back and prepared pictures; answers with every stage's features, or None if it cannot run it.
Witness = Callable[[Loaded, torch.Tensor], Mapping[str, torch.Tensor] | None]


def prove(source: Loaded, target: Loaded, *, witnesses: Mapping[str, Witness]) -> Proof:
    """Compare, stage by stage, the source as its owner runs it with the target as read back from disk.

    Source and target are each run under their own names with their own input convention, stem and stride, from the same
    RGB pictures with values in [0, 1]. The target is also run as the benchmarks run it, as torchvision's ResNet, and by
    each of the `witnesses` that can.

    Raises:
        UserError: a relative difference is above 1e-5 or not a number.
    """
    pictures = torch.rand(BATCH_SHAPE, generator=torch_generator(BATCH_SEED, "conversion-proof"))
    expected = _own_features(source, pictures)
    found: dict[str, Mapping[str, torch.Tensor]] = {
        "under its own names": _own_features(target, pictures),
        "as benchmarks run it": _network_features(target, pictures),
    }
    for name, run in witnesses.items():
        answer = run(target, target.found.input.prepare(pictures))
        if answer is not None:
            found[name] = answer
    differences = {
        name: {stage: difference(expected[stage], values[stage]) for stage in STAGES} for name, values in found.items()
    }
    for name, stages in differences.items():
        for stage, values in stages.items():
            if not values.relative <= MAX_RELATIVE:
                raise UserError(
                    f"{source.path}: expected the same features after conversion to {target.format}, found them apart "
                    f"by a relative {values.relative:.3g} (allowed {MAX_RELATIVE:g}) at {stage} {name}; nothing was "
                    "written"
                )
    return Proof(differences)


def difference(expected: torch.Tensor, found: torch.Tensor) -> Difference:
    """The largest absolute difference, and the same over the largest absolute value expected."""
    absolute = (expected - found).abs().max().item()
    scale = expected.abs().max().item()
    # Where everything is expected to be zero there is no scale, and only zero will do.
    relative = absolute / scale if scale != 0 else (0.0 if absolute == 0 else float("inf"))
    return Difference(absolute, relative)


def _own_features(loaded: Loaded, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
    found = loaded.found
    return features(
        found.network,
        found.spelling,
        found.input.prepare(pictures),
        stem=parse_arch(loaded.backbone.arch).stem,
        stride_in_1x1=found.stride_in_1x1,
    )


@torch.inference_mode()
def _network_features(loaded: Loaded, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
    network, outputs = build_network(loaded.backbone, shares_weights=True), {}

    def keep(stage: str) -> Callable[..., None]:
        return lambda module, inputs, output: outputs.update({stage: output})

    for stage in STAGES[:-1]:
        network.get_submodule("maxpool" if stage == "stem" else stage).register_forward_hook(keep(stage))
    outputs["pooled"] = network(loaded.backbone.input.prepare(pictures))
    return outputs
