"""Images in, batches of two views out. Order and views are functions of (seed, epoch, image), of nothing else."""

import ctypes
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import functional as F

from mocobench.runtime.distributed import rank, world_size
from mocobench.runtime.errors import UserError
from mocobench.runtime.images import list_images, read_rgb
from mocobench.runtime.seeds import torch_generator
from pretrain.recipes import Recipe
from pretrain.views import apply_view, draw_view


def training_images(data: Path) -> tuple[Path, ...]:
    """All images below `data/train`, sorted; labels are not needed.

    Raises:
        UserError: no such folder, no `train` in it, or no images below that.
    """
    if not data.is_dir():
        raise UserError(f"--data {data}: expected a folder that holds train/, found no such folder")
    if not (data / "train").is_dir():
        found = ", ".join(sorted(entry.name for entry in data.iterdir())[:5]) or "nothing"
        raise UserError(f"--data {data}: expected train/ with images below it, found {found}")
    return list_images(data / "train")


@dataclass(frozen=True)
class TwoViews(Dataset[torch.Tensor | UserError]):
    """Item (epoch, index) is two views of one image, uint8 (2, 3, S, S): first the query's, then the key's.

    An image that cannot be read is returned as its error: raised in a worker process, its one line would come
    back buried in that process's traceback.
    """

    paths: tuple[Path, ...]
    recipe: Recipe
    seed: int

    def __getitem__(self, item: tuple[int, int]) -> torch.Tensor | UserError:
        epoch, index = item
        try:
            image = read_rgb(self.paths[index])
        except UserError as error:
            return error
        views = []
        for role in ("query", "key"):
            generator = torch_generator(self.seed, "view", role, epoch, index)
            augmentation = self.recipe.augmentation
            view = draw_view(augmentation, width=image.width, height=image.height, generator=generator)
            views.append(apply_view(image, view, order=augmentation.order, size=self.recipe.image_size))
        return torch.stack([F.pil_to_tensor(view) for view in views])


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """This process's part of each batch, as (epoch, index), in the order of one epoch.

    The last, incomplete batch is dropped (authors' code). `epoch` and `first`, the number of batches to leave out at
    the front, are set before each pass: what is left out is never loaded.
    """

    def __init__(self, *, num_images: int, batch_size: int, seed: int) -> None:
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed
        self.epoch = self.first = 0
        self.rank, self.part = rank(), batch_size // world_size()

    def __len__(self) -> int:
        return self.num_images // self.batch_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        generator = torch_generator(self.seed, "order", self.epoch)
        order = torch.randperm(self.num_images, generator=generator).tolist()
        for batch in range(self.first, len(self)):
            start = batch * self.batch_size + self.rank * self.part
            yield [(self.epoch, index) for index in order[start : start + self.part]]


def make_loader(
    paths: tuple[Path, ...], recipe: Recipe, *, seed: int, num_workers: int
) -> tuple[DataLoader[torch.Tensor | UserError], EpochBatches]:
    """A loader of this process's parts of the batches, uint8 (n, 2, 3, S, S), and their order, to be set before a pass.

    A part with an image that cannot be read is that image's error instead.
    """
    batches = EpochBatches(num_images=len(paths), batch_size=recipe.batch_size, seed=seed)
    loader: DataLoader[torch.Tensor | UserError] = DataLoader(
        TwoViews(paths, recipe, seed),
        batch_sampler=batches,
        collate_fn=_collate,
        worker_init_fn=end_with_the_parent,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
    )
    return loader, batches


def _collate(items: list[torch.Tensor | UserError]) -> torch.Tensor | UserError:
    views = [item for item in items if isinstance(item, torch.Tensor)]
    errors = [item for item in items if isinstance(item, UserError)]
    return errors[0] if errors else torch.stack(views)


def end_with_the_parent(worker: int) -> None:
    """Let the system kill this worker when its process dies (Linux; elsewhere PyTorch's own watch ends it later).

    A worker has inherited the sockets between the ranks. Left over from a rank that was killed, it holds them open,
    and a group that torchrun starts again waits on them.
    """
    del worker
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
