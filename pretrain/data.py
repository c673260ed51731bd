"""Images in, batches of two views out. Order and views are functions of (seed, epoch, image), of nothing else.

Workers read, decode, draw the views and crop. What follows the crop runs where the training does: on a GPU for the
whole batch (`Batch.finish`), without one in the workers.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from mocobench.runtime.distributed import rank, world_size
from mocobench.runtime.errors import UserError
from mocobench.runtime.seeds import python_generator, torch_generator
from mocobench.runtime.workers import end_with_the_parent, share
from pretrain.batch_views import ViewTable, apply_views, crop_views
from pretrain.images import TrainingImages, read_image
from pretrain.settings import Recipe
from pretrain.views import draw_view

SUBSTITUTES = 10  # images tried in the place of one that cannot be read


@dataclass(frozen=True)
class Batch:
    """Two views of each of n images, uint8 (n, 2, 3, S, S): first the query's, then the key's.

    `to_apply` are the 2n drawn views of which `pixels` are the crops; None when all of a view is in the pixels.
    `bad_images` names the images that could not be read and in whose place others stand.
    """

    pixels: torch.Tensor
    to_apply: ViewTable | None = None
    bad_images: tuple[str, ...] = ()

    def pin_memory(self) -> "Batch":
        """For the loader: the same in memory from which a GPU copies without waiting."""
        return replace(self, pixels=self.pixels.pin_memory())

    def finish(self, recipe: Recipe, device: torch.device) -> torch.Tensor:
        """The whole views (n, 2, 3, S, S); what is left to apply is applied on `device`."""
        if self.to_apply is None:
            return self.pixels
        crops = self.pixels.to(device, non_blocking=True).flatten(0, 1)
        order = after_crop(recipe)
        return apply_views(crops, self.to_apply, order=order, size=recipe.image_size).unflatten(0, (-1, 2))


def after_crop(recipe: Recipe) -> tuple[str, ...]:
    """The operations of a view that run on its crop."""
    first, *rest = recipe.augmentation.order
    assert first == "crop", f"{recipe.name}: views are cropped first, then the rest runs on crops"
    return tuple(rest)


@dataclass(frozen=True)
class TwoViews(Dataset[Batch | UserError]):
    """Item (epoch, index) is two views of one image, as a batch of one.

    With `views_on_device` they are crops, and the rest is left to apply. An image that cannot be read is returned as
    its error: raised in a worker process, its one line would come back buried in that process's traceback. With
    `skip_bad` another image stands in its place, as much a function of (seed, epoch, index) as the one it replaces.
    """

    images: TrainingImages
    recipe: Recipe
    seed: int
    views_on_device: bool
    skip_bad: bool

    def __getitem__(self, item: tuple[int, int]) -> Batch | UserError:
        epoch, index = item
        bad: tuple[str, ...] = ()
        try:
            image = read_image(self.images, index)
        except UserError as error:
            if not self.skip_bad:
                return UserError(f"{error}, or skip such images with --on-bad-image skip")
            found = self._substitute(epoch, index)
            if found is None:
                return UserError(f"{error}; of {SUBSTITUTES} others drawn in its place none can be read either")
            image, bad = found, (self.images.name(index),)
        batch = replace(self.crop(image, epoch, index), bad_images=bad)
        if self.views_on_device:
            return batch
        return Batch(batch.finish(self.recipe, batch.pixels.device), bad_images=bad)

    def crop(self, image: torch.Tensor, epoch: int, index: int) -> Batch:
        """The two views that are drawn for (epoch, index), as crops of the image (3, H, W)."""
        height, width = image.shape[1:]
        views = []
        for role in ("query", "key"):
            generator = python_generator(self.seed, "view", role, epoch, index)
            views.append(draw_view(self.recipe.augmentation, width=width, height=height, generator=generator))
        return Batch(crop_views(image, views, size=self.recipe.image_size)[None], ViewTable.of(views))

    def _substitute(self, epoch: int, index: int) -> torch.Tensor | None:
        generator = torch_generator(self.seed, "substitute", epoch, index)
        for other in torch.randint(len(self.images), (SUBSTITUTES,), generator=generator).tolist():
            try:
                return read_image(self.images, other)
            except UserError:
                continue
        return None


@dataclass(frozen=True)
class OwnParts(Sampler[list[tuple[int, int]]]):
    """This process's part of each batch, as (epoch, index): what is left of a run's epochs, one after the other.

    Of the first epoch the first `step` batches are left out and never loaded; of each, the last, incomplete batch is
    dropped (authors' code).
    """

    images: TrainingImages
    recipe: Recipe
    seed: int
    epoch: int = 0
    step: int = 0

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        batch_size, part = self.recipe.batch_size, self.recipe.batch_size // world_size()
        for epoch in range(self.epoch, self.recipe.epochs):
            order = self.images.order(seed=self.seed, epoch=epoch)
            for batch in range(self.step if epoch == self.epoch else 0, len(order) // batch_size):
                start = batch * batch_size + rank() * part
                yield [(epoch, index) for index in order[start : start + part].tolist()]


def load_batches(
    own_parts: OwnParts, *, num_workers: int, views_on_device: bool, skip_bad: bool = False, pin_memory: bool = False
) -> Iterator[Batch | UserError]:
    """This process's parts of the batches, loaded; workers start with the first and never wait for an epoch's end.

    A part with an image that cannot be read is that image's error instead; with `skip_bad` only where nothing that can
    be read was found in its place. `pin_memory` is for training on CUDA, which it begins to use.
    """
    images, recipe, seed = own_parts.images, own_parts.recipe, own_parts.seed
    yield from DataLoader(
        TwoViews(images, recipe, seed, views_on_device, skip_bad),
        batch_sampler=own_parts,
        collate_fn=_collate,
        worker_init_fn=end_with_the_parent,
        num_workers=num_workers,
        pin_memory=pin_memory,
    )


def _collate(items: list[Batch | UserError]) -> Batch | UserError:
    errors = [item for item in items if isinstance(item, UserError)]
    if errors:
        return errors[0]
    parts = [item for item in items if isinstance(item, Batch)]
    tables = [part.to_apply for part in parts if part.to_apply is not None]
    try:
        pixels = share(torch.cat([part.pixels for part in parts]))
    except UserError as error:
        return error
    return Batch(
        pixels,
        ViewTable.joined(tables) if tables else None,
        tuple(name for part in parts for name in part.bad_images),
    )
