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
from mocobench.runtime.distributed import gather_tensors, rank, world_size
from mocobench.runtime.errors import UserError
from mocobench.runtime.images import ImageFolder, list_image_folder, read_rgb
from mocobench.runtime.neighbors import knn_accuracies
from mocobench.runtime.progress import progress
from mocobench.runtime.workers import share
from pretrain.data import end_with_the_parent
from pretrain.run import TrainingRun
from pretrain.step import make_normaliser

NEIGHBORS, TEMPERATURE = 200, 0.1  # the authors' CIFAR-10 demo
# Images per forward pass, of small ones more; bounds memory and moves no number, BN being in eval mode.
PIXELS_AT_ONCE, IMAGES_AT_ONCE = 128 * 224 * 224, 512


@dataclass(frozen=True)
class KnnMonitor:
    """Queries to be classified by their `num_neighbors` nearest in a bank with the same classes."""

    bank: ImageFolder
    queries: ImageFolder
    num_neighbors: int

    def measure(self, run: TrainingRun, encoder: nn.Module) -> dict[str, float]:
        """Top-1 accuracy in percent, by pooled features (`knn_top1`) and by embeddings (`knn_embedding_top1`).

        `encoder` ends in a projection head, `fc`. It is evaluated with its running statistics and goes on in training
        mode; nothing that training depends on changes. Every process computes its share of the features.

        Raises:
            UserError: an image cannot be read.
        """
        encoder.eval()
        bank, queries = (_extract(run, encoder, folder) for folder in (self.bank, self.queries))
        encoder.train()
        labels = [torch.tensor(folder.labels) for folder in (self.bank, self.queries)]
        return {
            name: knn_accuracies(
                (bank[place], labels[0]),
                (queries[place], labels[1]),
                neighbors=(self.num_neighbors,),
                num_classes=len(self.bank.classes),
                temperature=TEMPERATURE,
                device=run.device,
            )[self.num_neighbors]
            for place, name in enumerate(("knn_top1", "knn_embedding_top1"))
        }


def make_monitor(data: Path) -> KnnMonitor:
    """A monitor of the classes below `data/train`, the bank, and `data/val`, the queries.

    Raises:
        UserError: no such folders, no images in them, or classes that differ.
    """
    for split in ("train", "val"):
        if not (data / split).is_dir():
            raise UserError(f"--knn-data {data}: expected {split}/ with one folder of images per class, found none")
    bank, queries = list_image_folder(data / "train"), list_image_folder(data / "val")
    if bank.classes != queries.classes or len(bank.classes) < 2:
        raise UserError(
            f"--knn-data {data}: expected two or more classes, the same in train/ and val/, found "
            f"{_listed(bank.classes)} and {_listed(queries.classes)}"
        )
    return KnnMonitor(bank, queries, min(NEIGHBORS, len(bank.paths)))


def _listed(classes: tuple[str, ...]) -> str:
    return f"{', '.join(classes[:3])}{', ...' if len(classes) > 3 else ''} ({len(classes)})"


@dataclass(frozen=True)
class _CentralSquares(Dataset[torch.Tensor | UserError]):
    """The central square of each image, its side resized to `size`: uint8 (3, S, S), or what cannot be read."""

    paths: tuple[Path, ...]
    size: int

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor | UserError:
        try:
            image = read_rgb(self.paths[index])
        except UserError as error:
            return error
        return F.pil_to_tensor(F.center_crop(F.resize(image, self.size), [self.size, self.size]))


def _collate(items: list[torch.Tensor | UserError]) -> torch.Tensor | UserError:
    errors = [item for item in items if isinstance(item, UserError)]
    if errors:
        return errors[0]
    try:
        return share(torch.stack([item for item in items if isinstance(item, torch.Tensor)]))
    except UserError as error:
        return error


def _extract(run: TrainingRun, encoder: nn.Module, folder: ImageFolder) -> tuple[torch.Tensor, torch.Tensor]:
    """Pooled features (N, F) and embeddings (N, C) of the folder's images, on every process, on the CPU."""
    share = -(-len(folder.paths) // world_size())
    # Every process has as many: the last ones begin again at the front, and what is too much is cut off at the end.
    own = [folder.paths[index % len(folder.paths)] for index in range(rank() * share, (rank() + 1) * share)]
    loader: DataLoader[torch.Tensor | UserError] = DataLoader(
        _CentralSquares(tuple(own), run.recipe.image_size),
        batch_size=min(IMAGES_AT_ONCE, max(1, PIXELS_AT_ONCE // run.recipe.image_size**2)),
        collate_fn=_collate,
        worker_init_fn=end_with_the_parent,
        num_workers=run.num_workers,
    )
    normalise = make_normaliser(run)
    features, embeddings = [], []
    with _pooled_features(encoder) as pooled, progress(total=len(own), label="kNN features", unit="image") as bar:
        for images in loader:
            if isinstance(images, UserError):
                raise images
            with torch.no_grad(), autocast(run.device, run.precision):
                embeddings.append(encoder(normalise(images)).float())
            features.append(pooled.pop().float())
            bar.update(len(images))
    own_features, own_embeddings = torch.cat(features), torch.cat(embeddings)
    count = len(folder.paths)
    return gather_tensors(own_features)[:count].cpu(), gather_tensors(own_embeddings)[:count].cpu()


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
