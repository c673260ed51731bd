"""Tar shards: the images of a folder, each once an epoch over all processes; a resume; broken shards by name."""

import gzip
import io
import json
import signal
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from PIL import Image
from processes import in_processes
from tiny_pretraining import assert_same_state, draw_pictures, load, make_run, run_tiny
from torchvision.transforms.functional import pil_to_tensor

from mocobench.runtime.distributed import rank
from mocobench.runtime.errors import UserError
from pretrain.data import Batch, OwnParts, load_batches
from pretrain.images import FolderImages, read_image, training_images
from pretrain.shards import SHARDS_AT_ONCE, ShardImages, index_shard

SETTINGS = {"differing": {"epochs": 3}, "checkpoint_every": 2}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return draw_pictures(tmp_path / "pictures", 26)


def write_shards(pictures: Path, folder: Path, count: int) -> Path:
    """The pictures below `pictures/train` in `count` shards, with a label beside each, by the library's own writer."""
    images = training_images(pictures)
    assert isinstance(images, FolderImages)
    (folder / "train").mkdir(parents=True)
    for number in range(count):
        with webdataset.TarWriter(str(folder / "train" / f"part-{number:02d}.tar")) as writer:
            for path in map(images.path, range(number, len(images), count)):
                key = path.relative_to(images.root).with_suffix("").as_posix()
                writer.write({"__key__": key, "png": path.read_bytes(), "cls": "ab".index(path.parent.name)})
    return folder


@pytest.fixture
def shards(pictures: Path, tmp_path: Path) -> Path:
    return write_shards(pictures, tmp_path / "shards", 5)


def test_folder_and_shards_hold_the_same_images(pictures: Path, shards: Path) -> None:
    folder, tars = training_images(pictures), training_images(shards)
    assert isinstance(tars, ShardImages)
    assert len(tars) == len(folder) == 26
    of_folder = {folder.name(index): read_image(folder, index).tolist() for index in range(26)}
    of_tars = {tars.name(index).split(": ")[1]: read_image(tars, index).tolist() for index in range(26)}
    assert of_tars == of_folder
    assert tars.name(0) == "part-00.tar: a/00.png"


def test_the_library_reads_the_same_samples_in_the_same_order(shards: Path) -> None:
    pattern = str(shards / "train" / "part-{00..04}.tar")
    theirs = [sample["png"] for sample in webdataset.WebDataset(pattern, shardshuffle=False)]
    ours = training_images(Path(pattern))
    assert [read_image(ours, index).tolist() for index in range(len(ours))] == [
        pil_to_tensor(Image.open(io.BytesIO(content)).convert("RGB")).tolist() for content in theirs
    ]
    assert ours.identity() == training_images(shards).identity()
    assert len(training_images(shards / "train" / "part-03.tar")) == 5


def test_an_epochs_order_is_a_mix_of_a_few_shards_at_a_time() -> None:
    count, size = 2 * SHARDS_AT_ONCE, 3
    empty = np.zeros(count * size, dtype=int)
    shards = tuple(Path(f"{number}.tar") for number in range(count))
    images = ShardImages(shards, np.arange(count + 1) * size, empty.astype("S"), empty, empty)
    order = images.order(seed=0, epoch=0)
    assert sorted(order.tolist()) == list(range(count * size))
    first, second = ((part // size).tolist() for part in order.chunk(2))
    assert set(first).isdisjoint(second)
    assert len(set(first)) == SHARDS_AT_ONCE
    assert first != sorted(first)
    assert torch.equal(order, images.order(seed=0, epoch=0))
    assert not torch.equal(order, images.order(seed=0, epoch=1))
    assert not torch.equal(order, images.order(seed=1, epoch=0))


def seen(data: Path, *, epoch: int = 0, first: int = 0, workers: int = 0) -> list[list[bytes]]:
    """The pixels of this process's parts of the batches of an epoch, from batch `first` on."""
    recipe = make_run(data, data, differing={"batch_size": 8, "bn_groups": 2, "epochs": epoch + 1}).recipe
    own_parts = OwnParts(training_images(data), recipe, seed=0, epoch=epoch, step=first)
    assert rank() < 2
    found = []
    for batch in load_batches(own_parts, num_workers=workers, views_on_device=False):
        assert isinstance(batch, Batch), batch
        found.append([views.numpy().tobytes() for views in batch.pixels])
    return found


def test_each_sample_once_over_processes_and_workers(shards: Path) -> None:
    whole = seen(shards)
    of_ranks = [answer for _, answer in in_processes(2, seen, shards, workers=2)]
    assert [first + second for first, second in zip(*of_ranks, strict=True)] == whole
    assert set(Counter(views for batch in whole for views in batch).values()) == {1}
    assert sum(map(len, whole)) == 24  # the last, incomplete batch is dropped


@pytest.mark.parametrize("first", [1, 2])
def test_an_epoch_goes_on_at_any_batch(shards: Path, first: int) -> None:
    whole = seen(shards, epoch=1)
    assert seen(shards, epoch=1, first=first, workers=2) == whole[first:]
    assert whole != seen(shards, epoch=0)


def test_a_run_that_was_killed_ends_as_one_that_was_not(shards: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    in_processes(1, run_tiny, shards, whole, **SETTINGS)
    answers = in_processes(1, run_tiny, shards, killed, kill=("step", 10), num_workers=2, **SETTINGS)
    assert answers == [(-signal.SIGKILL, None)]
    in_processes(1, run_tiny, shards, killed, num_workers=1, **SETTINGS)
    assert_same_state(*(load(out / "checkpoint_last.pth.tar") for out in (whole, killed)))
    record = json.loads((whole / "run.json").read_text())
    assert (record["data"]["images"], record["data"]["shards"]) == (26, 5)


def add(tar: tarfile.TarFile, name: str, content: bytes = b"0") -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def write_tar(path: Path, *names: str) -> Path:
    with tarfile.open(path, "w") as tar:
        for name in names:
            add(tar, name)
    return path


def test_the_image_of_a_sample_is_found_among_its_parts(tmp_path: Path) -> None:
    long = "folder/" * 30 + "c.png"  # names past 100 bytes have headers of their own
    tar = write_tar(
        tmp_path / "a.tar", "__meta__/x.json", "./a.cls", "./a.JPEG", "b.left.jpg", "b.json", long, "README"
    )
    assert [member.name for member in index_shard(tar)] == ["./a.JPEG", "b.left.jpg", long]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("a.jpg", "b.cls", "b.txt"), "b: expected one image in each sample, found cls, txt"),
        (("a.jpg", "a.png"), "a: expected one image in each sample, found jpg, png"),
        (("a.jpg", "a.jpg"), "expected each member once in a sample, found a.jpg: duplicate file name in tar file jpg"),
    ],
)
def test_samples_without_their_one_image_are_refused(tmp_path: Path, names: tuple[str, ...], found: str) -> None:
    with pytest.raises(UserError) as error:
        index_shard(write_tar(tmp_path / "a.tar", *names))
    assert str(error.value).startswith(f"{tmp_path}/a.tar: {found}")


HEADER = tarfile.BLOCKSIZE  # bytes; so is the content of each member here, with what fills up its block


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (lambda whole: b"", "empty file at its beginning"),
        (lambda whole: b"<html>", "truncated header at its beginning"),
        (lambda whole: gzip.compress(whole, 0), "bad checksum at its beginning"),
        (lambda whole: whole[: 3 * HEADER], "unexpected end of data at or after member b.jpg"),
        (lambda whole: whole[: 2 * HEADER + 100], "no end of the archive at or after member a.jpg"),
        (lambda whole: whole[: 2 * HEADER] + b"?" * HEADER + whole[3 * HEADER :], "no end of the archive at or after"),
        (lambda whole: whole[: 6 * HEADER], "no end of the archive at or after member c.jpg"),
        (lambda whole: whole + whole, "more behind its end, such as a second tar, at or after member c.jpg"),
    ],
)
def test_a_broken_shard_is_one_line_with_shard_and_member(tmp_path: Path, content, found: str) -> None:
    path = write_tar(tmp_path / "a.tar", "a.jpg", "b.jpg", "c.jpg")
    assert len(index_shard(path)) == 3
    path.write_bytes(content(path.read_bytes()))
    with pytest.raises(UserError) as error:
        training_images(path)
    assert str(error.value).startswith(f"{path}: expected a whole, uncompressed tar, found {found}")
    assert "\n" not in str(error.value)


def test_a_bad_image_in_a_shard_is_named(shards: Path) -> None:
    path = shards / "train" / "part-01.tar"
    first = index_shard(path)[0]
    content = bytearray(path.read_bytes())
    content[first.offset : first.offset + 8] = bytes(8)
    path.write_bytes(content)
    images = training_images(shards)
    index = images.starts[1]
    with pytest.raises(UserError, match=rf"^{path}: {first.name}: expected an image that can be decoded, found"):
        read_image(images, index)
    path.unlink()
    with pytest.raises(UserError, match=rf"^{path}: expected an image, found no such file"):
        read_image(images, index)


def test_shards_that_are_not_there(shards: Path, pictures: Path) -> None:
    with pytest.raises(
        UserError, match=r"expected 6 shards, found no \S+/part-05\.tar \(missing: 1 of them\); several are named"
    ):
        training_images(shards / "train" / "part-{00..05}.tar")
    with pytest.raises(UserError, match=r"^\S+/none.tar: expected images \(\.jpg .*\) in the shards, found none"):
        training_images(write_tar(shards / "none.tar", "README"))
    for pattern, found in {
        "train-{0000..0146.tar": "Unbalanced braces: 'train-{0000..0146.tar'",
        "${X}/a.tar": "missing environment variable wds_WDS_X",
    }.items():
        with pytest.raises(UserError) as error:
            training_images(Path(pattern))
        expected = "expected shards as 'train-{0000..0146}.tar'"
        assert str(error.value) == f"--data {pattern}: {expected}, found {found}; mend the pattern"
    (shards / "train" / ".cache").mkdir()
    assert training_images(shards)
    (shards / "train" / "a").mkdir()
    with pytest.raises(UserError, match=r"expected shards or images in train/, found part-00\.tar, a$"):
        training_images(shards)
