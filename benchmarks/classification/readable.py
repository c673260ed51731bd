"""Which images of a list cannot be read: looked at before training that reads them in every epoch.

Where each image is read once, its reading tells, and none is looked at beforehand. Training for many epochs adds one
more pass over its images, and knows from the first step on what it trains on: a run that was killed goes on with the
same list, and its batches are those of a list without such images.
"""

from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from torch.utils.data import DataLoader, Dataset

from benchmarks.classification.data import LabelledSplits, read_splits
from benchmarks.classification.torchvision_data import LabelledImages
from benchmarks.context import RunContext
from mocobench.runtime.distributed import gather_objects, rank, world_size
from mocobench.runtime.errors import UserError
from mocobench.runtime.progress import progress
from mocobench.runtime.workers import end_with_the_parent

READ_AT_ONCE = 64  # images that a worker answers for together


def unreadable(images: LabelledImages, context: RunContext) -> tuple[int, ...]:
    """The positions of the images that cannot be read whole, if `context` skips them; the ranks share the reading.

    Raises:
        UserError: none can be read.
    """
    if context.on_bad_image == "stop":
        return ()
    own = range(rank(), len(images), world_size())
    loader: DataLoader[int | None] = DataLoader(
        _Faults(images),
        sampler=own,
        batch_size=READ_AT_ONCE,
        collate_fn=_only_bad,
        num_workers=context.num_workers,
        worker_init_fn=end_with_the_parent,
    )
    found = list(chain.from_iterable(progress(loader, label="reading images", unit="batch")))
    bad = tuple(sorted(chain.from_iterable(gather_objects(found))))
    require_readable(images, bad)
    return bad


def readable_splits(data: Path, context: RunContext) -> LabelledSplits:
    """The splits of a folder without images that cannot be read, if `context` skips them, all being looked at.

    Raises:
        UserError: as `read_splits`, none can be read, or a class has no image left to train on.
    """
    splits = read_splits(data)
    return splits.without(train=unreadable(splits.train, context), val=unreadable(splits.val, context))


def require_readable(images: LabelledImages, bad: tuple[int, ...]) -> None:
    """Refuse images of which all are bad; of no images none is.

    Raises:
        UserError: they are.
    """
    if bad and len(bad) == len(images):
        raise UserError(
            f"--on-bad-image skip: expected images that can be read, found {len(bad)} that cannot, "
            f"{images.name(bad[0])} among them; look at --data"
        )


@dataclass(frozen=True)
class _Faults(Dataset[int | None]):
    """The position of an image that cannot be read, None for one that can."""

    images: LabelledImages

    def __getitem__(self, index: int) -> int | None:
        try:
            self.images.read(index)
        except UserError:
            return index
        return None


def _only_bad(items: list[int | None]) -> list[int]:
    return [index for index in items if index is not None]
