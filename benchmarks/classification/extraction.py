"""Features of all images of a list in one pass, in memory or in a file that later runs find.

An image that cannot be read stops the pass or, with `--on-bad-image skip`, is left out of it.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from benchmarks.classification.data import Batch, LabelledSplits, StillView, batches_in_one_pass
from benchmarks.classification.feature_cache import KeptFeatures, cache_path, read_features, write_features
from benchmarks.classification.features import FEATURE_BATCH, FrozenBackbone
from benchmarks.classification.readable import require_readable
from benchmarks.classification.torchvision_data import LabelledImages
from benchmarks.context import RunContext
from mocobench.runtime.distributed import barrier, gather_objects, gather_tensors, is_main, rank, world_size
from mocobench.runtime.errors import UserError
from mocobench.runtime.memory import out_of_memory_means
from mocobench.runtime.neighbors import half_precision_bank
from mocobench.runtime.progress import progress

# In which form features are given and kept: as computed, or as a bank of neighbours.
FORMS = {"float32": torch.float32, "unit float16": torch.float16}


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
    frozen: FrozenBackbone,
    splits: LabelledSplits,
    view: StillView,
    context: RunContext,
    *,
    train_form: str = "float32",
) -> tuple[LabelledSplits, Batch, Batch]:
    """Features (N, C) and labels (N,) of the training and of the validation images, and the splits that they are of.

    Those are the splits given, but for images that cannot be read and are left out. `train_form` is one of `FORMS`.

    Raises:
        UserError: as `extract_folder`, or a class has no image left to train on.
    """
    val = extract_folder(frozen, splits.val, view, context, label="val features")
    train = extract_folder(frozen, splits.train, view, context, label="train features", form=train_form)
    return splits.without(train=train.left_out, val=val.left_out), train.batch, val.batch


def extract_folder(
    frozen: FrozenBackbone,
    images: LabelledImages,
    view: StillView,
    context: RunContext,
    *,
    label: str,
    form: str = "float32",
) -> Extracted:
    """Features of one view of every image, in one of `FORMS`.

    With `context.features` they come from a file there, and are computed when it has none. Each form has a file of its
    own, made from that of float32 where there is one. The ranks share the work; each has all features.

    Raises:
        UserError: an image cannot be read, or none where they are skipped, a feature is not finite, or the file cannot
            be written or is not seen by every rank.
    """
    work = _Pass(frozen, images, view, context, label, form)
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
    view: StillView
    context: RunContext
    label: str
    form: str

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.images), self.frozen.feature_size

    def in_memory(self) -> KeptFeatures:
        with out_of_memory_means(f"{self.label} of {len(self.images)} images", remedy="keep them in --features DIR"):
            features, num_rows = torch.empty(self.shape, dtype=FORMS[self.form]), 0

        def append(part: torch.Tensor) -> None:
            nonlocal num_rows
            features[num_rows : num_rows + len(part)] = part
            num_rows += len(part)

        left_out = self._compute(append)
        return KeptFeatures(features[:num_rows], left_out)

    def in_file(self, folder: Path) -> KeptFeatures:
        key = self._key(self.form)
        path = cache_path(folder, key)
        kept = self._read(folder, self.form) if is_main() else None
        if gather_objects(kept is None)[0]:
            whole = self._read(folder, "float32") if is_main() and self.form != "float32" else None
            is_computed = gather_objects(whole is None)[0]
            writing = write_features(path, key, shape=self.shape, dtype=FORMS[self.form])
            with writing if is_main() else nullcontext() as file:
                append = file.append if file is not None else lambda part: None
                left_out = self._compute(append) if is_computed else self._convert(whole, append)
                if file is not None:
                    file.left_out = left_out
            barrier()
        if kept is None:
            kept = self._read(folder, self.form)
        if kept is None:
            raise UserError(f"--features {folder}: expected {path.name} to be seen by every process, found none")
        return kept

    def _read(self, folder: Path, form: str) -> KeptFeatures | None:
        key = self._key(form)
        path = cache_path(folder, key)
        kept = read_features(path, key, shape=self.shape, dtype=FORMS[form])
        if kept is None or not kept.left_out or self.context.on_bad_image == "skip":
            return kept
        print(f"{path}: not used, it is without images that could not be read; the features are computed again")
        return None

    def _key(self, form: str) -> dict[str, Any]:
        """All that the features depend on."""
        return {
            "backbone": self.frozen.backbone.digest,
            "images": self._list_sha256,
            "view": {"kind": type(self.view).__name__, **asdict(self.view)},
            "grid": self.frozen.folded.grid,
            "precision": self.frozen.precision,
            "device": self.frozen.device.type,
            "form": form,
        }

    @cached_property
    def _list_sha256(self) -> str:
        return self.images.list_sha256()

    def _in_form(self, features: torch.Tensor) -> torch.Tensor:
        return features if self.form == "float32" else half_precision_bank(features)

    def _convert(self, whole: KeptFeatures | None, append: Callable[[torch.Tensor], None]) -> tuple[int, ...]:
        """As `_compute`, of features that are kept in float32, on the rank that has them."""
        if whole is None:
            return ()
        for part in whole.features.split(FEATURE_BATCH):
            append(self._in_form(part))
        return whole.left_out

    def _compute(self, append: Callable[[torch.Tensor], None]) -> tuple[int, ...]:
        """Hand over the features part by part; returns the positions of the images that are left out."""
        there = torch.zeros(len(self.images), dtype=torch.bool)
        for positions, part in self._parts():
            append(self._in_form(part))
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
            pin_memory=self.context.device.type == "cuda",
        )
        with progress(total=len(self.images), label=self.label, unit="image") as bar:
            for first in range(0, len(blocks), world_size()):
                part = torch.zeros(FEATURE_BATCH, self.frozen.feature_size)
                positions = torch.full((FEATURE_BATCH,), -1)
                if first + rank() < len(blocks):
                    pixels, read = next(batches)
                    if len(read):
                        part[: len(read)], positions[: len(read)] = self.frozen.features(pixels).cpu(), read
                part, positions = gather_tensors(part), gather_tensors(positions)
                there = positions >= 0
                yield positions[there], part[there]
                bar.update(sum(len(block) for block in blocks[first : first + world_size()]))
