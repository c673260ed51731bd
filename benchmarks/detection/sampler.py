"""Which images a training batch shows: Detectron2's order of images, shared out over ranks and grouped by aspect.

A position counts the elements of the one stream that all ranks share, from 0.
"""

from collections.abc import Iterator
from itertools import count, islice

import torch

from benchmarks.detection.records import LabelledImage
from mocobench.runtime.errors import UserError
from mocobench.runtime.seeds import derive_seed


def images_to_train_on(images: tuple[LabelledImage, ...]) -> tuple[LabelledImage, ...]:
    """The images that show at least one object that is not a crowd.

    Raises:
        UserError: there is none.
    """
    kept = tuple(image for image in images if (~image.crowd).any())
    if not kept:
        raise UserError(f"training images: expected some with objects, found none among {len(images)}; add annotations")
    return kept


def sampler_seed(seed: int, purpose: str) -> int:
    """The seed of the order of images in a run with `seed`; Detectron2's TrainingSampler takes it as its own."""
    return derive_seed(seed, purpose, "order")


def image_order(num_images: int, seed: int) -> Iterator[int]:
    """One permutation of all images after another without end, drawn as Detectron2's TrainingSampler draws them."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(num_images, generator=generator).tolist()


def stream_of_batches(
    images: tuple[LabelledImage, ...], *, batch_size: int, seed: int, rank: int = 0, world_size: int = 1
) -> Iterator[list[tuple[int, int]]]:
    """This rank's batches of (position, index of the image), without end.

    Rank r of w takes the positions r, r + w, r + 2w, ... Landscape images (width > height) are batched apart from
    all others, so that little is padded; a batch is given out when it is full (Detectron2's
    AspectRatioGroupedDataset).

    Args:
        batch_size: images per batch of this rank.
        seed: of the order, equal on all ranks; see `sampler_seed`.
    """
    waiting: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
    numbered = zip(count(), image_order(len(images), seed))
    for position, index in islice(numbered, rank, None, world_size):
        batch = waiting[images[index].width > images[index].height]
        batch.append((position, index))
        if len(batch) == batch_size:
            yield batch.copy()
            batch.clear()
