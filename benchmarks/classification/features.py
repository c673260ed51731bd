"""Frozen features: the backbone in eval mode, prepared as its weights ask, and the proof that it stayed frozen."""

from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.classification.folded import FoldedResNet, fold_resnet
from mocobench.runtime.errors import UserError
from mocobench.runtime.memory import out_of_memory_means
from transfer.backbone import Backbone, is_counter
from transfer.network import build_network

FEATURE_BATCH = 128  # images per forward pass; bounds memory and moves no number, BN being in eval mode
LEAST_NORM = 1e-12  # what features are divided by where they are all zero, as F.normalize has it
LESS_MEMORY = "use --device cpu, or lower --image-size, which changes the protocol"


@dataclass(frozen=True)
class FrozenBackbone:
    """A backbone's network on a device, and the same folded, which computes the features. Neither ever trains."""

    backbone: Backbone
    network: nn.Module
    folded: FoldedResNet
    device: torch.device
    precision: str

    @property
    def feature_size(self) -> int:
        """How many values the features of an image have."""
        return self.backbone.feature_size * self.folded.grid**2

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Pooled features (N, `feature_size`), float32 on the device, of uint8 RGB images (N, 3, H, W).

        Raises:
            UserError: a feature is not finite, the images are too small for the grid, or memory runs out.
        """
        with out_of_memory_means(f"features of {len(images)} images at a time", remedy=LESS_MEMORY), torch.no_grad():
            images = images.to(self.device, non_blocking=True).to(memory_format=torch.channels_last)
            features = self.folded(self.backbone.input.prepare(images.float() / 255))
        if not features.isfinite().all():
            raise UserError(
                f"{self.backbone.provenance.source}: expected finite features at --precision {self.precision}, "
                "found NaN or infinity; try --precision fp32, or other weights"
            )
        return features

    def require_unmoved(self) -> None:
        """Prove that every tensor still is, bit for bit, the backbone's: a probe must train its classifier alone.

        What computes the features still is, bit for bit, what these tensors give when they are folded again.

        Raises:
            AssertionError: a tensor moved; it is named.
        """
        state = self.network.state_dict()
        for name, tensor in self.backbone.tensors.items():
            if not is_counter(name) and not torch.equal(state[name].cpu(), tensor):
                raise AssertionError(f"{name} moved although the backbone is frozen")
        again = fold_resnet(self.network, precision=self.precision).tensors()
        for number, (expected, found) in enumerate(zip(again, self.folded.tensors(), strict=True)):
            if not torch.equal(expected, found):
                raise AssertionError(f"tensor {number} of the folded network moved although the backbone is frozen")


def freeze(backbone: Backbone, *, device: torch.device, precision: str, grid: int = 1) -> FrozenBackbone:
    """The backbone's network, frozen, on a device; its last map is pooled to `grid` x `grid`, by default globally."""
    network = build_network(backbone).requires_grad_(False)
    network = network.to(device).to(memory_format=torch.channels_last).eval()
    folded = fold_resnet(network, precision=precision, grid=grid)
    return FrozenBackbone(backbone, network, folded, device, precision)


def mean_norm(features: torch.Tensor) -> float:
    """Mean L2 norm of features (N, C): the scale that a probe's learning rate has to suit."""
    return features.norm(dim=1).mean().item()
