"""What the loader gives: views by their seeds, on the device or in the workers; other images in place of bad ones."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import in_processes
from tiny_pretraining import assert_same_state, draw_pictures, load, make_run, make_tiny_encoder, run_tiny
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from mocobench.runtime.distributed import rank
from mocobench.runtime.errors import UserError
from mocobench.runtime.images import list_images
from mocobench.runtime.seeds import python_generator
from pretrain.data import SUBSTITUTES, Batch, OwnParts, TwoViews, load_batches
from pretrain.images import FolderImages, read_image, training_images
from pretrain.moco_recipes import AUG_PLUS, AUG_V1
from pretrain.settings import Recipe
from pretrain.train import pretrain as run_pretraining
from pretrain.views import apply_view, draw_view

CPU = torch.device("cpu")
SETTINGS = {"differing": {"epochs": 3}, "checkpoint_every": 2, "on_bad_image": "skip"}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return draw_pictures(tmp_path / "pictures", 26)


def recipe_of(data: Path, **changes) -> Recipe:
    return replace(make_run(data, data).recipe, **changes)


def parts_of(data: Path, *, epoch: int, step: int = 0, **changes) -> OwnParts:
    """This process's parts of the batches of one epoch."""
    recipe = recipe_of(data, epochs=epoch + 1, **changes)
    return OwnParts(training_images(data), recipe, seed=0, epoch=epoch, step=step)


def pass_over(data: Path, *, epoch: int = 0, first: int = 0, workers: int = 0, **options) -> list[torch.Tensor]:
    """The whole views of an epoch, from batch `first` on."""
    recipe = recipe_of(data)
    options = {"views_on_device": False} | options
    found = []
    for batch in load_batches(parts_of(data, epoch=epoch, step=first), num_workers=workers, **options):
        assert isinstance(batch, Batch), batch
        assert (batch.to_apply is not None) == options["views_on_device"]
        found.append(batch.finish(recipe, CPU))
    return found


@pytest.mark.parametrize("augmentation", [AUG_PLUS, AUG_V1], ids=["v2", "v1"])
def test_an_item_is_pils_two_views_of_its_image(pictures: Path, augmentation) -> None:
    """Bounds as between the two back ends, see test_pretrain_batch_views."""
    images, recipe = training_images(pictures), recipe_of(pictures, augmentation=augmentation, image_size=48)
    for index in range(10):
        item = TwoViews(images, recipe, seed=5, views_on_device=False, skip_bad=False)[3, index]
        image = to_pil_image(read_image(images, index))
        theirs = []
        for role in ("query", "key"):
            generator = python_generator(5, "view", role, 3, index)
            view = draw_view(augmentation, width=image.width, height=image.height, generator=generator)
            theirs.append(pil_to_tensor(apply_view(image, view, order=augmentation.order, size=48)))
        gap = (item.pixels[0].int() - torch.stack(theirs).int()).abs()
        assert gap.max() <= 24
        assert gap.float().mean() <= 1


@pytest.mark.parametrize("workers", [0, 2])
def test_views_on_the_device_equal_views_in_the_workers(pictures: Path, workers: int) -> None:
    in_workers = pass_over(pictures, epoch=1)
    on_device = pass_over(pictures, epoch=1, workers=workers, views_on_device=True)
    assert [views.shape for views in in_workers] == [(4, 2, 3, 16, 16)] * 6
    assert all(torch.equal(a, b) for a, b in zip(in_workers, on_device, strict=True))


def test_views_that_do_not_begin_with_a_crop_are_refused(pictures: Path) -> None:
    augmentation = replace(AUG_PLUS, order=("jitter", "crop"))
    item = TwoViews(training_images(pictures), recipe_of(pictures, augmentation=augmentation), 0, False, False)
    with pytest.raises(AssertionError, match="views are cropped first"):
        item[0, 0]


def own_order(data: Path, epoch: int, first: int) -> list[list[tuple[int, int]]]:
    assert rank() < 3
    return list(parts_of(data, epoch=epoch, step=first, batch_size=6, bn_groups=3))


def test_processes_share_each_batch_of_one_order(pictures: Path) -> None:
    whole = own_order(pictures, 2, 0)
    assert len({item for batch in whole for item in batch}) == 24  # each image once, but for the last 26 - 24
    of_ranks = [answer for _, answer in in_processes(3, own_order, pictures, 2, 0)]
    assert [[item for part in parts for item in part] for parts in zip(*of_ranks, strict=True)] == whole
    assert own_order(pictures, 2, 3) == whole[3:]
    assert own_order(pictures, 1, 0) != whole


def test_an_epoch_follows_the_one_before(pictures: Path) -> None:
    run = OwnParts(training_images(pictures), recipe_of(pictures, epochs=3), seed=0, epoch=1, step=4)
    assert list(run) == [*parts_of(pictures, epoch=1, step=4), *parts_of(pictures, epoch=2)]


def spoil(data: Path, *numbers: int) -> list[str]:
    """Cut these pictures short; returns their names."""
    images = training_images(data)
    for number in numbers:
        path = images.path(number)
        path.write_bytes(path.read_bytes()[:60])
    return sorted(map(images.name, numbers))


def test_another_image_stands_in_the_place_of_a_bad_one(pictures: Path) -> None:
    sound = [pass_over(pictures, epoch=epoch) for epoch in (0, 1)]
    bad = spoil(pictures, 3, 20)
    images = training_images(pictures)
    items = TwoViews(images, recipe_of(pictures), 0, False, True)
    assert [images.name(3), images.name(20)] == bad == ["a/06.png", "b/15.png"]
    assert [items[0, index].bad_images for index in (2, 3, 20)] == [(), ("a/06.png",), ("b/15.png",)]
    assert torch.equal(items[0, 3].pixels, items[0, 3].pixels)
    assert not torch.equal(items[0, 3].pixels, items[1, 3].pixels)
    for epoch in (0, 1):
        order = [index for batch in parts_of(pictures, epoch=epoch) for _, index in batch]
        skipped = pass_over(pictures, epoch=epoch, skip_bad=True)
        same = [torch.equal(a, b) for a, b in zip(torch.cat(sound[epoch]), torch.cat(skipped), strict=True)]
        assert [index for index, is_same in zip(order, same, strict=True) if not is_same] == [
            index for index in order if index in (3, 20)
        ]
        again = pass_over(pictures, epoch=epoch, first=2, workers=2, skip_bad=True)
        assert all(torch.equal(a, b) for a, b in zip(again, skipped[2:], strict=True))


def test_a_batch_of_nothing_but_bad_images_is_replaced_too(pictures: Path) -> None:
    """With few images on each process that is no sign of bad data, and every resume would meet it again."""
    first = next(iter(parts_of(pictures, epoch=0)))
    spoil(pictures, *(index for _, index in first))
    batches = list(load_batches(parts_of(pictures, epoch=0), num_workers=0, views_on_device=False, skip_bad=True))
    assert [len(batch.bad_images) for batch in batches if isinstance(batch, Batch)] == [4, 0, 0, 0, 0, 0]


def test_no_image_to_stand_in(pictures: Path) -> None:
    spoil(pictures, *range(26))
    error = TwoViews(training_images(pictures), recipe_of(pictures), 0, False, True)[0, 0]
    assert isinstance(error, UserError)
    assert f"of {SUBSTITUTES} others drawn in its place none can be read either" in str(error)


def test_stop_says_how_to_skip(pictures: Path) -> None:
    spoil(pictures, 0)
    error = TwoViews(training_images(pictures), recipe_of(pictures), 0, False, False)[0, 0]
    assert str(error).startswith(f"{pictures}/train/a/00.png: expected an image that can be decoded, found")
    assert str(error).endswith("; replace or remove it, or skip such images with --on-bad-image skip")


def test_bad_images_are_told_once(pictures: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("pretrain.methods.make_encoder", make_tiny_encoder)
    spoil(pictures, 3, 11, 20)
    run_pretraining(make_run(pictures, tmp_path / "run", on_bad_image="skip", differing={"epochs": 3}))
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("images that cannot")]
    assert told == ["images that cannot be read so far: 3, a/06.png first; they are skipped (run.json)"]


def test_a_bad_image_whose_name_is_not_utf8_is_told_and_recorded(
    pictures: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr("pretrain.methods.make_encoder", make_tiny_encoder)
    Path(os.fsdecode(os.fsencode(pictures) + b"/train/caf\xe9.png")).write_bytes(b"no image")
    settings = SETTINGS | {"differing": {"epochs": 9}}  # so many that none is left out each time
    run_pretraining(make_run(pictures, tmp_path / "run", **settings))
    assert "images that cannot be read so far: 1, caf\\xe9.png first; they are skipped" in capsys.readouterr().out
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["bad_images"] == {"count": 1, "files": ["caf\\xe9.png"]}


def test_workers_share_the_names_with_their_process(pictures: Path) -> None:
    """What Python counts references of, each worker would copy bit by bit; an array of bytes is one block for all."""
    images = training_images(pictures)
    assert isinstance(images, FolderImages)
    held = [value for value in vars(images).values() if not isinstance(value, Path)]
    assert [(type(value), value.dtype.kind, len(value)) for value in held] == [(np.ndarray, "S", 26)]
    assert [images.path(index) for index in range(26)] == list(list_images(pictures / "train"))


def test_bad_images_are_recorded_over_kills_and_processes(pictures: Path, tmp_path: Path) -> None:
    bad = spoil(pictures, 3, 11, 20)
    whole = tmp_path / "whole"
    in_processes(1, run_tiny, pictures, whole, **SETTINGS)
    record = json.loads((whole / "run.json").read_text())
    assert record["bad_images"] == {"count": 3, "files": bad}
    killed = tmp_path / "killed"
    answers = in_processes(1, run_tiny, pictures, killed, kill=("step", 15), **SETTINGS)
    assert answers == [(-signal.SIGKILL, None)]
    progress = load(killed / "checkpoint_last.pth.tar")["mocobench"]["progress"]
    assert (progress["epoch"], progress["step"], progress["bad_images"]) == (2, 2, bad)
    in_processes(1, run_tiny, pictures, killed, num_workers=2, **SETTINGS)
    assert_same_state(*(load(out / "checkpoint_last.pth.tar") for out in (whole, killed)))
    assert json.loads((killed / "run.json").read_text())["bad_images"] == record["bad_images"]
    assert in_processes(2, run_tiny, pictures, tmp_path / "two", **SETTINGS) == [(0, "checkpoint_last.pth.tar")] * 2
    assert json.loads((tmp_path / "two" / "run.json").read_text())["bad_images"] == record["bad_images"]
