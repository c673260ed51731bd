"""Checkpoints that authors released: known by their MD5, they say more of themselves than is in the file."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from transfer.backbone import Provenance


@dataclass(frozen=True)
class ReleasedFile:
    """A released checkpoint by the first digits of its MD5, and its pretraining: `recipe` is ours that repeats it."""

    md5_prefix: str
    method: str
    epochs: int
    recipe: str
    num_images: int


def candidates(provenance: Provenance, released: Sequence[ReleasedFile]) -> tuple[ReleasedFile, ...]:
    """Those that a file of this provenance may be: of its epochs where it says them, and none where it has a recipe."""
    if provenance.recipe is not None:
        return ()
    return tuple(file for file in released if provenance.epochs in (None, file.epochs))


def recognise(provenance: Provenance, md5: str, released: Sequence[ReleasedFile]) -> Provenance:
    """The provenance with what is known of the released file that has this MD5, unchanged where none has."""
    for file in released:
        if md5.startswith(file.md5_prefix):
            known = {name: value for name, value in asdict(file).items() if name != "md5_prefix"}
            return replace(provenance, **known)
    return provenance
