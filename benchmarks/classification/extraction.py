"""Features of all images of a list in one pass, in memory or in a file that later runs find.

An image that cannot be read stops the pass or, with `--on-bad-image skip`, is left out of it.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.classification.data import Batch, CenterView, LabelledSplits, batches_in_one_pass
from benchmarks.classification.feature_cache import KeptFeatures, cache_path, read_features, write_features
from benchmarks.classification.features import FEATURE_BATCH, FrozenBackbone
from benchmarks.classification.readable import require_readable
from benchmarks.classification.torchvision_data import LabelledImages
from benchmarks.context import RunContext
from mocobench.runtime.distributed import barrier, gather_objects, gather_tensors, is_main, rank, world_size
from mocobench.runtime.errors import UserError
from mocobench.runtime.progress import progress


@dataclass(frozen=True)
class Extracted:
    """Features (N, C) and labels (N,), on the CPU, of the images that could be read, and the positions of the others.

    The features are in the order of the list, a memory map where they are kept in a file.
    """

    features: torch.Tensor
    labels: torch.Tensor
    left_out: tuple[int, ...]

    @property
    def batch(self) -> Batch:
        return self.features, self.labels


def extract_splits(
    frozen: FrozenBackbone, splits: LabelledSplits, view: CenterView, context: RunContext
) -> tuple[LabelledSplits, Batch, Batch]:
    """Features (N, C) and labels (N,) of the training and of the validation images, and the splits that they are of.

    Those are the splits given, but for images that cannot be read and are left out.

    Raises:
        UserError: as `extract_folder`, or a class has no image left to train on.
    """
    val = extract_folder(frozen, splits.val, view, context, label="val features")
    train = extract_folder(frozen, splits.train, view, context, label="train features")
    return splits.without(train=train.left_out, val=val.left_out), train.batch, val.batch


def extract_folder(
    frozen: FrozenBackbone, images: LabelledImages, view: CenterView, context: RunContext, *, label: str
) -> Extracted:
    """Features of one view of every image.

    With `context.features` they come from a file there, and are computed when it has none. The ranks share the work;
    each has all features.

    Raises:
        UserError: an image cannot be read, or none where they are skipped, a feature is not finite, or the file cannot
            be written or is not seen by every rank.
    """
    work = _Pass(frozen, images, view, context, label)
    kept = work.in_memory() if context.features is None else work.in_file(context.features)
    labels = torch.tensor(images.labels)
    if kept.left_out:
        labels = labels[_rest(len(images), kept.left_out)]
    return Extracted(kept.features, labels, kept.left_out)


def _rest(num_images: int, left_out: tuple[int, ...]) -> torch.Tensor:
    rest = torch.ones(num_images, dtype=torch.bool)
    rest[torch.tensor(left_out)] = False
    return rest


@dataclass(frozen=True)
class _Pass:
    frozen: FrozenBackbone
    images: LabelledImages
    view: CenterView
    context: RunContext
    label: str

    def in_memory(self) -> KeptFeatures:
        features, num_rows = torch.empty(len(self.images), self.frozen.backbone.feature_size), 0

        def append(part: torch.Tensor) -> None:
            nonlocal num_rows
            features[num_rows : num_rows + len(part)] = part
            num_rows += len(part)

        left_out = self._compute(append)
        return KeptFeatures(features[:num_rows], left_out)

    def in_file(self, folder: Path) -> KeptFeatures:
        key = self._key()
        path, shape = cache_path(folder, key), (len(self.images), self.frozen.backbone.feature_size)
        kept = self._read(path, key) if is_main() else None
        if gather_objects(kept is None)[0]:
            with write_features(path, key, shape=shape) if is_main() else nullcontext() as file:
                left_out = self._compute(file.append if file is not None else lambda part: None)
                if file is not None:
                    file.left_out = left_out
            barrier()
        if kept is None:
            kept = self._read(path, key)
        if kept is None:
            raise UserError(f"--features {folder}: expected {path.name} to be seen by every process, found none")
        return kept

    def _key(self) -> dict[str, Any]:
        """All that the features depend on."""
        return {
            "backbone": self.frozen.backbone.digest,
            "images": self.images.list_sha256(),
            "view": asdict(self.view),
            "precision": self.frozen.precision,
            "device": self.frozen.device.type,
        }

    def _read(self, path: Path, key: dict[str, Any]) -> KeptFeatures | None:
        kept = read_features(path, key, shape=(len(self.images), self.frozen.backbone.feature_size))
        if kept is None or not kept.left_out or self.context.on_bad_image == "skip":
            return kept
        print(f"{path}: not used, it is without images that could not be read; the features are computed again")
        return None

    def _compute(self, append: Callable[[torch.Tensor], None]) -> tuple[int, ...]:
        """Hand over the features part by part; returns the positions of the images that are left out."""
        there = torch.zeros(len(self.images), dtype=torch.bool)
        for positions, part in self._parts():
            append(part)
            there[positions] = True
        left_out = tuple((~there).nonzero().flatten().tolist())
        require_readable(self.images, left_out)
        return left_out

    def _parts(self) -> Iterator[Batch]:
        """Positions (n,) of images that could be read and their features (n, C), in order, on the CPU of every rank."""
        # Whole blocks go round the ranks: an image is in the same forward pass however many there are.
        blocks = [block.tolist() for block in torch.arange(len(self.images)).split(FEATURE_BATCH)]
        batches = batches_in_one_pass(
            self.images,
            blocks[rank() :: world_size()],
            view=self.view,
            seed=self.context.seed,
            num_workers=self.context.num_workers,
            on_bad_image=self.context.on_bad_image,
        )
        with progress(total=len(self.images), label=self.label, unit="image") as bar:
            for first in range(0, len(blocks), world_size()):
                part = torch.zeros(FEATURE_BATCH, self.frozen.backbone.feature_size)
                positions = torch.full((FEATURE_BATCH,), -1)
                if first + rank() < len(blocks):
                    pixels, read = next(batches)
                    if len(read):
                        part[: len(read)], positions[: len(read)] = self.frozen.features(pixels).cpu(), read
                part, positions = gather_tensors(part), gather_tensors(positions)
                there = positions >= 0
                yield positions[there], part[there]
                bar.update(sum(len(block) for block in blocks[first : first + world_size()]))
