"""Online kNN: how well the encoder being trained tells apart the classes of a labelled folder, every few epochs.

It says whether a run learns what is hoped for, long before its end. It is no benchmark: no record comes of it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import functional as F

from mocobench.runtime.device import autocast
from mocobench.runtime.distributed import gather_tensors, rank, sum_over_ranks, world_size
from mocobench.runtime.errors import UserError
from mocobench.runtime.images import ImageFolder, list_image_folder, read_rgb
from mocobench.runtime.neighbors import half_precision_bank, knn_accuracies
from mocobench.runtime.progress import progress
from mocobench.runtime.workers import end_with_the_parent, share
from pretrain.run import TrainingRun
from pretrain.step import make_normaliser

NEIGHBORS, TEMPERATURE = 200, 0.1  # the authors' CIFAR-10 demo
# Images per forward pass, of small ones more; bounds memory and moves no number, BN being in eval mode.
PIXELS_AT_ONCE, IMAGES_AT_ONCE = 128 * 224 * 224, 512


@dataclass(frozen=True)
class KnnMonitor:
    """Queries to be classified by the nearest in a bank with the same classes."""

    bank: ImageFolder
    queries: ImageFolder

    def measure(self, run: TrainingRun, encoder: nn.Module) -> tuple[dict[str, float], list[str]]:
        """Top-1 accuracy in percent, by pooled features (`knn_top1`) and by embeddings (`knn_embedding_top1`).

        Also the names of the images that this process could not read and left out, where `run` skips such images.
        `encoder` ends in a projection head, `fc`. It is evaluated with its running statistics and goes on in training
        mode; nothing that training depends on changes. Every process computes its share of the features and searches
        its own part of the bank.

        Raises:
            UserError: an image cannot be read, or, where such images are skipped, none of a split can.
        """
        encoder.eval()
        bank, queries = (_extract(run, encoder, folder) for folder in (self.bank, self.queries))
        encoder.train()
        bank_size = int(sum_over_ranks(torch.tensor(bank.count)))
        query_labels = gather_tensors(queries.labels)
        is_read = query_labels >= 0
        for folder, count in ((self.bank, bank_size), (self.queries, int(is_read.sum()))):
            if not count:
                raise UserError(
                    f"--on-bad-image skip: expected images that can be read in {folder.root}, found {len(folder)} that "
                    "cannot; look at --knn-data"
                )
        k = min(NEIGHBORS, bank_size)
        accuracies = {
            name: knn_accuracies(
                (own[: bank.count], bank.labels[: bank.count]),
                (gather_tensors(asked)[is_read], query_labels[is_read]),
                neighbors=(k,),
                num_classes=len(self.bank.classes),
                temperature=TEMPERATURE,
                device=run.device,
                bank_is_shared_out=True,
            )[k]
            for name, own, asked in (
                ("knn_top1", bank.pooled, queries.pooled),
                ("knn_embedding_top1", bank.embeddings, queries.embeddings),
            )
        }
        return accuracies, bank.left_out + queries.left_out


def make_monitor(data: Path) -> KnnMonitor:
    """A monitor of the classes below `data/train`, the bank, and `data/val`, the queries.

    Raises:
        UserError: no such folders, no images in them, or classes that differ.
    """
    for split in ("train", "val"):
        if not (data / split).is_dir():
            raise UserError(
                f"--knn-every: expected {split}/ with one folder of images per class in {data}, found none; name a "
                "labelled folder with --knn-data"
            )
    bank, queries = list_image_folder(data / "train"), list_image_folder(data / "val")
    if bank.classes != queries.classes or len(bank.classes) < 2:
        raise UserError(
            f"--knn-data {data}: expected two or more classes, the same in train/ and val/, found "
            f"{_listed(bank.classes)} and {_listed(queries.classes)}"
        )
    return KnnMonitor(bank, queries)


def _listed(classes: tuple[str, ...]) -> str:
    return f"{', '.join(classes[:3])}{', ...' if len(classes) > 3 else ''} ({len(classes)})"


Squares = tuple[torch.Tensor, list[bool]]  # uint8 (N, 3, S, S), and which of them are of an image that could be read


@dataclass(frozen=True)
class _CentralSquares(Dataset[torch.Tensor | UserError]):
    """The central square of each image, its side resized to `size`: uint8 (3, S, S), or what cannot be read."""

    paths: tuple[Path, ...]
    size: int
    skip_bad: bool

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor | UserError:
        try:
            image = read_rgb(self.paths[index])
        except UserError as error:
            return error
        return F.pil_to_tensor(F.center_crop(F.resize(image, self.size), [self.size, self.size]))

    def collate(self, items: list[torch.Tensor | UserError]) -> Squares | UserError:
        """The squares, black for an image that cannot be read; its error where such images are not skipped."""
        errors = [item for item in items if isinstance(item, UserError)]
        if errors and not self.skip_bad:
            return UserError(f"{errors[0]}, or skip such images with --on-bad-image skip")
        black = torch.zeros(3, self.size, self.size, dtype=torch.uint8)
        squares = torch.stack([black if isinstance(item, UserError) else item for item in items])
        try:
            return share(squares), [isinstance(item, torch.Tensor) for item in items]
        except UserError as error:
            return error


@dataclass(frozen=True)
class _OwnFeatures:
    """Pooled features (n, F) and embeddings (n, C) of this process's share of a folder, in half precision, on the CPU.

    Every process has as many rows. Those of its images come first, `count` of them with their labels (n,); -1 is the
    label of the rest. `left_out` are the names of images that could not be read.
    """

    pooled: torch.Tensor
    embeddings: torch.Tensor
    labels: torch.Tensor
    left_out: list[str]

    @property
    def count(self) -> int:
        return int((self.labels >= 0).sum())


def _extract(run: TrainingRun, encoder: nn.Module, folder: ImageFolder) -> _OwnFeatures:
    size = -(-len(folder) // world_size())
    first = rank() * size
    # So that every process has some, the last ones begin again at the front; those images do not count.
    own = [index % len(folder) for index in range(first, first + size)]
    num_counted = max(0, min(size, len(folder) - first))
    paths = tuple(folder.paths[index] for index in own)
    squares = _CentralSquares(paths, run.recipe.image_size, run.on_bad_image == "skip")
    rows: list[torch.Tensor] = []
    labels: list[int] = []
    left_out: list[str] = []
    done = 0
    for found, is_read in _half_features(run, encoder, squares):
        places = [place for place, read in enumerate(is_read) if read and done + place < num_counted]
        # Each in its place at once: parts put together at the end would be there twice.
        rows = rows or [torch.zeros(size, values.shape[1], dtype=values.dtype) for values in found]
        for row, values in zip(rows, found, strict=True):
            row[len(labels) : len(labels) + len(places)] = values[places]
        labels += [folder.labels[own[done + place]] for place in places]
        unread = [done + place for place, read in enumerate(is_read) if not read and done + place < num_counted]
        left_out += [f"kNN {folder.root.name}/{folder.name(own[place])}" for place in unread]
        done += len(is_read)
    return _OwnFeatures(rows[0], rows[1], torch.tensor(labels + [-1] * (size - len(labels))), left_out)


def _half_features(
    run: TrainingRun, encoder: nn.Module, squares: _CentralSquares
) -> Iterator[tuple[list[torch.Tensor], list[bool]]]:
    """Batch by batch pooled features and embeddings on the CPU, and which of them are of an image that could be read.

    Raises:
        UserError: an image cannot be read.
    """
    loader: DataLoader[torch.Tensor | UserError] = DataLoader(
        squares,
        batch_size=min(IMAGES_AT_ONCE, max(1, PIXELS_AT_ONCE // run.recipe.image_size**2)),
        collate_fn=squares.collate,
        worker_init_fn=end_with_the_parent,
        num_workers=run.num_workers,
    )
    normalise = make_normaliser(run)
    with _pooled_features(encoder) as pooled, progress(total=len(squares), label="kNN features", unit="image") as bar:
        for batch in loader:
            if isinstance(batch, UserError):
                raise batch
            images, is_read = batch
            with torch.no_grad(), autocast(run.device, run.precision):
                embeddings = encoder(normalise(images))
            yield [half_precision_bank(values.float()).cpu() for values in (pooled.pop(), embeddings)], is_read
            bar.update(len(is_read))


@contextmanager
def _pooled_features(encoder: nn.Module) -> Iterator[list[torch.Tensor]]:
    """A list that receives what goes into the projection head, each time the encoder runs."""
    received: list[torch.Tensor] = []
    head = encoder.get_submodule("fc")
    hook = head.register_forward_pre_hook(lambda _, inputs: received.append(inputs[0]))
    try:
        yield received
    finally:
        hook.remove()
