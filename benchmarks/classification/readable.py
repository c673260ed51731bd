"""Which images of a list can be read: what `--on-bad-image skip` looks for before the work, so that none stops it."""

from dataclasses import dataclass
from itertools import chain

from torch.utils.data import DataLoader, Dataset

from benchmarks.classification.torchvision_data import LabelledImages
from mocobench.runtime.distributed import gather_objects, rank, world_size
from mocobench.runtime.errors import UserError
from mocobench.runtime.progress import progress

READ_AT_ONCE = 64  # images that a worker answers for together


def readable(images: LabelledImages, *, num_workers: int) -> tuple[LabelledImages, tuple[str, ...]]:
    """The images that can be read whole, and the names of the others; the ranks share the reading.

    Raises:
        UserError: there is none that can be read.
    """
    own = range(rank(), len(images), world_size())
    loader: DataLoader[int | None] = DataLoader(
        _Faults(images), sampler=own, batch_size=READ_AT_ONCE, collate_fn=_only_bad, num_workers=num_workers
    )
    found = list(chain.from_iterable(progress(loader, label="reading images", unit="batch")))
    bad = sorted(chain.from_iterable(gather_objects(found)))
    if len(bad) == len(images):
        raise UserError(
            f"--on-bad-image skip: expected images that can be read, found {len(bad)} that cannot, "
            f"{images.name(bad[0])} among them; look at --data"
        )
    rest = set(range(len(images))) - set(bad)
    return images.select(sorted(rest)), tuple(images.name(index) for index in bad)


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
