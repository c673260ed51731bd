"""Frozen features: the backbone in eval mode, prepared as its weights ask, and the proof that it stayed frozen."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from benchmarks.classification.data import Batch, CenterView, listed_batches
from benchmarks.classification.feature_cache import cache_path, read_features, write_features
from benchmarks.classification.folded import FoldedResNet, fold_resnet
from benchmarks.classification.torchvision_data import LabelledImages
from benchmarks.context import RunContext
from mocobench.runtime.distributed import barrier, gather_objects, gather_tensors, is_main, rank, world_size
from mocobench.runtime.errors import UserError
from mocobench.runtime.progress import progress
from transfer.backbone import Backbone, is_counter
from transfer.network import build_network

FEATURE_BATCH = 128  # images per forward pass; bounds memory and moves no number, BN being in eval mode


@dataclass(frozen=True)
class FrozenBackbone:
    """A backbone's network on a device, and the same folded, which computes the features. Neither ever trains."""

    backbone: Backbone
    network: nn.Module
    folded: FoldedResNet
    device: torch.device
    precision: str

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Pooled features (N, C), float32 on the device, of uint8 RGB images (N, 3, H, W).

        Raises:
            UserError: a feature is not finite.
        """
        images = images.to(self.device, non_blocking=True).to(memory_format=torch.channels_last)
        with torch.no_grad():
            features = self.folded(self.backbone.input.prepare(images.float() / 255))
        if not features.isfinite().all():
            raise UserError(
                f"{self.backbone.provenance.source}: expected finite features at --precision {self.precision}, "
                "found NaN or infinity; try --precision fp32, or other weights"
            )
        return features

    def extract_folder(self, folder: LabelledImages, view: CenterView, context: RunContext, *, label: str) -> Batch:
        """Features (N, C) and labels (N,) of one view of every image, in the folder's order, on the CPU.

        With `context.features` they come from a file there, as a memory map, and are computed when it has none. The
        ranks share the work; each has all features.

        Raises:
            UserError: an image cannot be read, a feature is not finite, or the file cannot be written or is not seen
                by every rank.
        """
        labels, shape = torch.tensor(folder.labels), (len(folder), self.backbone.feature_size)
        parts = self._in_order(folder, view, context, label=label)
        if context.features is None:
            features = torch.empty(shape)
            for start, part in parts:
                features[start : start + len(part)] = part
            return features, labels
        key = self._cache_key(folder, view)
        path = cache_path(context.features, key)
        kept = read_features(path, key, shape=shape) if is_main() else None
        if gather_objects(kept is None)[0]:
            with write_features(path, key, shape=shape) if is_main() else nullcontext() as file:
                for _, part in parts:
                    if file is not None:
                        file.append(part)
            barrier()
        if kept is None:
            kept = read_features(path, key, shape=shape)
        if kept is None:
            raise UserError(
                f"--features {context.features}: expected {path.name} to be seen by every process, found none"
            )
        return kept, labels

    def _in_order(
        self, folder: LabelledImages, view: CenterView, context: RunContext, *, label: str
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Where each part starts, and its features (n, C), on the CPU of every rank."""
        # Whole blocks go round the ranks: an image is in the same forward pass however many there are.
        blocks = [block.tolist() for block in torch.arange(len(folder)).split(FEATURE_BATCH)]
        batches = listed_batches(
            folder, blocks[rank() :: world_size()], view=view, seed=context.seed, num_workers=context.num_workers
        )
        with progress(total=len(folder), label=label, unit="image") as bar:
            for first in range(0, len(blocks), world_size()):
                part = torch.zeros(FEATURE_BATCH, self.backbone.feature_size)
                if first + rank() < len(blocks):
                    images, _ = next(batches)
                    part[: len(images)] = self.features(images).cpu()
                start = first * FEATURE_BATCH
                together = gather_tensors(part)[: len(folder) - start]
                yield start, together
                bar.update(len(together))

    def _cache_key(self, folder: LabelledImages, view: CenterView) -> dict[str, Any]:
        """All that the features depend on."""
        return {
            "backbone": self.backbone.digest,
            "images": folder.list_sha256(),
            "view": asdict(view),
            "precision": self.precision,
            "device": self.device.type,
        }

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


def freeze(backbone: Backbone, *, device: torch.device, precision: str) -> FrozenBackbone:
    """The backbone's network, frozen, on a device."""
    network = build_network(backbone).requires_grad_(False)
    network = network.to(device).to(memory_format=torch.channels_last).eval()
    return FrozenBackbone(backbone, network, fold_resnet(network, precision=precision), device, precision)


def mean_norm(features: torch.Tensor) -> float:
    """Mean L2 norm of features (N, C): the scale that a probe's learning rate has to suit."""
    return features.norm(dim=1).mean().item()
