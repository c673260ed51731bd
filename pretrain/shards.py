"""Tar shards in WebDataset's layout, as images that can be read in any order.

The `webdataset` library says which shards a pattern means and which files of a tar are a sample. It reads shards as
streams, and a stream gets to its n-th sample by way of all those before it. So index, order and reading are ours: the
headers of each shard are read once, at the start, and from then on a sample is a place in a file.
"""

import hashlib
import os
import re
import tarfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from mocobench.runtime.distributed import gather_objects, rank, world_size
from mocobench.runtime.errors import UserError
from mocobench.runtime.files import printable
from mocobench.runtime.images import IMAGE_SUFFIXES, read_content
from mocobench.runtime.progress import progress
from mocobench.runtime.seeds import torch_generator
from pretrain.decoding import decode_pixels

# Images are shuffled within so many shards: a batch is mixed even where a shard holds one class, and what is read at
# a time stays small enough for the system to keep.
SHARDS_AT_ONCE = 16
META = re.compile(r"__[^/]*__($|/)")  # files that WebDataset keeps for itself


class Member(NamedTuple):
    """A file in a tar: its name, and the place of its content in bytes."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True, eq=False)
class ShardImages:
    """The images of several shards, numbered shard by shard in the order of each tar.

    Image i is `sizes[i]` bytes from `offsets[i]` of the shard that has the range `starts[s] <= i < starts[s + 1]`.
    Arrays and not tuples: the workers share them with the process they come from. What cannot be read or decoded is a
    UserError.
    """

    shards: tuple[Path, ...]
    starts: np.ndarray
    names: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def _shard(self, index: int) -> Path:
        return self.shards[int(np.searchsorted(self.starts, index, side="right")) - 1]

    def content(self, index: int) -> bytes:
        """The bytes of image `index`."""
        place = {"offset": int(self.offsets[index]), "size": int(self.sizes[index])}
        return read_content(self._shard(index), **place)

    def decode(self, index: int, content: bytes) -> torch.Tensor:
        """Image `index` from its bytes, RGB, uint8 (3, H, W)."""
        return decode_pixels(content, name=f"{self._shard(index)}: {self._member(index)}")

    def _member(self, index: int) -> str:
        return os.fsdecode(bytes(self.names[index]))

    def name(self, index: int) -> str:
        """What a record calls image `index`."""
        return printable(f"{self._shard(index).name}: {self._member(index)}")

    def order(self, *, seed: int, epoch: int) -> torch.Tensor:
        """Every index once, int64 (N,), in the order of the epoch.

        The shards are shuffled, and then the images of the first 16 of them, of the next 16 and so on.
        """
        generator = torch_generator(seed, "order", epoch)
        starts, parts = self.starts.tolist(), []
        for shards in torch.randperm(len(self.shards), generator=generator).split(SHARDS_AT_ONCE):
            indices = torch.cat([torch.arange(starts[shard], starts[shard + 1]) for shard in shards.tolist()])
            parts.append(indices[torch.randperm(len(indices), generator=generator)])
        return torch.cat(parts)

    def identity(self) -> dict[str, Any]:
        """What tells these images from others: their number, and a hash over shards, names and sizes."""
        digest = hashlib.sha256()
        for shard, first, end in zip(self.shards, self.starts, self.starts[1:], strict=False):
            digest.update(os.fsencode(f"{shard.name}\t{end - first}\n"))
        digest.update(b"\n".join(self.names.tolist()) + self.sizes.astype("<i8").tobytes())
        return {"images": len(self), "shards": len(self.shards), "list_sha256": digest.hexdigest()}


def open_shards(shards: tuple[Path, ...]) -> ShardImages:
    """Read the headers of all shards, each process those of its share.

    Raises:
        UserError: a shard is missing or broken, has a sample without its one image, or no shard has any.
    """
    missing = [shard for shard in shards if not shard.is_file()]
    if missing:
        raise UserError(
            f"--data: expected {len(shards)} shards, found no {missing[0]} (missing: {len(missing)} of them); several "
            "are named as 'train-{0000..0146}.tar', or by the folder whose train/ holds them"
        )
    own = progress(shards[rank() :: world_size()], label="index", unit="shard")
    indexed = gather_objects([index_shard(shard) for shard in own])
    in_order = [indexed[number % world_size()][number // world_size()] for number in range(len(shards))]
    members = [member for shard in in_order for member in shard]
    if not members:
        raise UserError(f"{shards[0]}: expected images ({' '.join(IMAGE_SUFFIXES)}) in the shards, found none")
    return ShardImages(
        shards,
        starts=np.cumsum([0, *map(len, in_order)]),
        names=np.array([os.fsencode(member.name) for member in members]),
        offsets=np.array([member.offset for member in members]),
        sizes=np.array([member.size for member in members]),
    )


def expand_pattern(pattern: Path) -> tuple[Path, ...]:
    """The shards that a pattern such as `train-{0000..0146}.tar` means.

    Raises:
        UserError: it means none.
    """
    from webdataset.shardlists import expand_urls

    try:
        return tuple(Path(name) for name in expand_urls(str(pattern)))
    except (ValueError, AssertionError) as error:  # unbalanced braces; ${NAME}, which stands for WDS_NAME
        raise UserError(
            f"--data {pattern}: expected shards as 'train-{{0000..0146}}.tar', found {error}; mend the pattern"
        ) from error


def index_shard(shard: Path) -> list[Member]:
    """The image of each sample, in the order of the tar.

    Raises:
        UserError: the tar is not whole, or a sample has no image or more than one; the member is named.
    """
    from webdataset.tariterators import group_by_keys

    members = [member for member in _read_headers(shard) if not META.match(member.name)]
    files = ({"fname": member.name, "data": member, "__url__": shard} for member in members)
    try:
        samples = list(group_by_keys(files))
    except ValueError as error:
        raise UserError(f"{shard}: expected each member once in a sample, found {error.args[0]}") from error
    return [_the_image(shard, sample) for sample in samples]


def _the_image(shard: Path, sample: dict[str, Any]) -> Member:
    parts = {suffix: part for suffix, part in sample.items() if not suffix.startswith("__")}
    images: list[Member] = [part for suffix, part in parts.items() if f".{suffix}".endswith(IMAGE_SUFFIXES)]
    if len(images) != 1:
        raise UserError(f"{shard}: {sample['__key__']}: expected one image in each sample, found {', '.join(parts)}")
    return images[0]


def _read_headers(shard: Path) -> list[Member]:
    members: list[Member] = []
    try:
        with shard.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for info in tar:
                if info.isreg():
                    members.append(Member(info.name, info.offset_data, info.size))
            # tarfile takes what it cannot read for the end; the end is a block of zeros.
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("no end of the archive")
            if any(map(any, iter(partial(file.read, tarfile.RECORDSIZE), b""))):
                raise tarfile.ReadError("more behind its end, such as a second tar,")
    except (tarfile.TarError, OSError) as error:
        place = f"at or after member {members[-1].name}" if members else "at its beginning"
        raise UserError(
            f"{shard}: expected a whole, uncompressed tar, found {error} {place}; write or copy it again"
        ) from error
    return members
