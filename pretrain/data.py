"""Images in, batches of two views out. Order and views are functions of (seed, epoch, image), of nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import functional as F

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
    """Batches of (epoch, index) in the order of one epoch; the last, incomplete batch is dropped (authors' code)."""

    def __init__(self, *, num_images: int, batch_size: int, seed: int) -> None:
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed
        self.epoch = 0

    def __len__(self) -> int:
        return self.num_images // self.batch_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        generator = torch_generator(self.seed, "order", self.epoch)
        order = torch.randperm(self.num_images, generator=generator).tolist()
        for batch in range(len(self)):
            start = batch * self.batch_size
            yield [(self.epoch, index) for index in order[start : start + self.batch_size]]


def make_loader(
    paths: tuple[Path, ...], recipe: Recipe, *, seed: int, num_workers: int
) -> tuple[DataLoader[torch.Tensor | UserError], EpochBatches]:
    """A loader of batches uint8 (N, 2, 3, S, S), and the order whose `epoch` is to be set before each pass.

    A batch with an image that cannot be read is that image's error instead.

    Raises:
        UserError: fewer images than one batch.
    """
    if len(paths) < recipe.batch_size:
        raise UserError(
            f"--batch-size {recipe.batch_size}: expected at least as many training images, found {len(paths)}; "
            "use a smaller batch or more images"
        )
    batches = EpochBatches(num_images=len(paths), batch_size=recipe.batch_size, seed=seed)
    loader: DataLoader[torch.Tensor | UserError] = DataLoader(
        TwoViews(paths, recipe, seed),
        batch_sampler=batches,
        collate_fn=_collate,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
    )
    return loader, batches


def _collate(items: list[torch.Tensor | UserError]) -> torch.Tensor | UserError:
    views = [item for item in items if isinstance(item, torch.Tensor)]
    errors = [item for item in items if isinstance(item, UserError)]
    return errors[0] if errors else torch.stack(views)
