"""How the global batch is cut into parts: over processes, and on each over passes, one after another.

A part is what one GPU has in Detectron2: its own images of the common order, its own draws, its own BatchNorm
statistics where they are not synchronised, the mean of its own losses. The gradient is the mean over all parts. So
it makes no difference to the images, the draws and the gradient whether a part has a device to itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch

from benchmarks.context import RunContext
from benchmarks.detection.input import Example, training_batches
from benchmarks.detection.protocol import DetectionProtocol
from benchmarks.detection.records import LabelledImage
from mocobench.runtime.distributed import rank, world_size
from mocobench.runtime.errors import UserError
from mocobench.runtime.seeds import derive_seed


@dataclass(frozen=True)
class Parts:
    """`num_passes` parts on each of `world_size` processes, of `images` images each; this process is `rank`."""

    images: int
    num_passes: int
    rank: int
    world_size: int

    @property
    def count(self) -> int:
        """Parts of the global batch."""
        return self.num_passes * self.world_size

    def batch_norm(self, *, is_synchronised: bool) -> str:
        """Whose statistics normalise an image in training, in words for the record."""
        is_shared = is_synchronised and self.world_size > 1
        images, batch = self.images * (self.world_size if is_shared else 1), self.images * self.count
        over = f"the whole batch of {batch} images" if images == batch else f"parts of {images} images of {batch}"
        return f"over {over}{f', synchronised over {self.world_size} processes' if is_shared else ''}"


def cut_batch(batch_size: int, images_per_pass: int | None) -> Parts:
    """Cut the global batch into equal parts, one for each process when `images_per_pass` is None.

    Raises:
        UserError: it does not divide.
    """
    processes = world_size()
    if batch_size % processes:
        raise UserError(
            f"--batch-size {batch_size}: expected a multiple of the {processes} processes, found {batch_size}; "
            "start as many processes as divide it"
        )
    own = batch_size // processes
    images = own if images_per_pass is None else images_per_pass
    if images < 1 or own % images:
        raise UserError(
            f"--images-per-pass {images}: expected a divisor of the {own} images of each process "
            f"(batch size {batch_size}, {processes} processes); choose one"
        )
    return Parts(images, own // images, rank(), processes)


def batches_of_parts(
    images: tuple[LabelledImage, ...],
    protocol: DetectionProtocol,
    context: RunContext,
    parts: Parts,
    *,
    purpose: str,
    num_batches: int,
    first_batch: int = 0,
) -> Iterator[list[list[Example]]]:
    """For each batch of the stream of (seed, purpose) from `first_batch` on, the images of this process by pass."""
    batches = training_batches(
        images,
        protocol,
        num_batches=num_batches,
        seed=context.seed,
        purpose=purpose,
        num_workers=context.num_workers,
        batch_size=parts.images,
        rank=parts.rank,
        world_size=parts.world_size,
        first_batch=first_batch,
        passes=parts.num_passes,
    )
    while batch := list(islice(batches, parts.num_passes)):
        yield batch


def sample_generator(context: RunContext, parts: Parts, *, purpose: str, batch: int, number: int) -> torch.Generator:
    """Draws the anchors and regions of this process's pass `number` of a batch, on the device."""
    part = parts.rank * parts.num_passes + number
    seed = derive_seed(context.seed, purpose, "sample", batch, part)
    return torch.Generator(context.device).manual_seed(seed)
