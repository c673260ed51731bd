"""The pretraining run: what it writes, and bad input."""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_pretraining import assert_same_state, draw_pictures, load, make_run, make_tiny_encoder
from torch.utils.data import DataLoader

from mocobench.runtime.errors import UserError
from pretrain.data import OwnParts, load_batches
from pretrain.images import training_images
from pretrain.recipes import RECIPES
from pretrain.train import pretrain


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return draw_pictures(tmp_path / "images")


@pytest.fixture(autouse=True)
def tiny_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pretrain.methods.make_encoder", make_tiny_encoder)


def test_writes_the_authors_layout_and_records(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    last = pretrain(make_run(images, out))
    content = load(last)
    assert {"epoch", "arch", "state_dict", "optimizer", "mocobench"} == set(content)
    assert (content["epoch"], content["arch"]) == (2, "resnet50")
    assert content["state_dict"]["module.queue"].shape == (128, 10)
    assert content["state_dict"]["module.queue_ptr"].item() == 2 * 2 * 4 % 10  # epochs x batches x images, wrapped
    assert content["mocobench"]["input"] == {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    # the authors' optimizer numbers every parameter, the key encoder's too
    assert len(content["optimizer"]["param_groups"][0]["params"]) == 2 * 6
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert all(np.isfinite(line["loss"]) for line in lines)
    record = json.loads((out / "run.json").read_text())
    assert record["data"]["images"] == 10
    assert record["recipe"]["epochs"] == 2
    assert f"epochs: {RECIPES['demo'].epochs} -> 2" in record["differs"]
    assert list(out.glob("events.out.tfevents.*"))
    assert_same_state(content, load(out / "checkpoint_0002.pth.tar"))
    assert not list(out.glob(".*tmp"))


def test_the_share_of_waiting_for_data(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_late(*parts: Any, **settings: Any) -> Iterator[Any]:
        for batch in load_batches(*parts, **settings):
            time.sleep(0.2)
            yield batch

    monkeypatch.setattr("pretrain.train.load_batches", load_late)
    pretrain(make_run(images, tmp_path / "run"))
    for line in map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()):
        seconds = 2 * 4 / line["images_per_second"]  # of two batches of four
        assert 0.4 <= line["data_wait_share"] * seconds < seconds


def test_the_same_seed_gives_the_same_weights_whatever_the_workers(images: Path, tmp_path: Path) -> None:
    first = load(pretrain(make_run(images, tmp_path / "a")))
    second = load(pretrain(make_run(images, tmp_path / "b", num_workers=2)))
    assert_same_state(first, second)
    other = load(pretrain(make_run(images, tmp_path / "c", seed=1)))
    assert not torch.equal(first["state_dict"]["module.queue"], other["state_dict"]["module.queue"])


def said_of(line: str) -> str:
    """What is printed of a line of metrics.jsonl."""
    metrics = json.loads(line)
    values = (
        f"loss {metrics['loss']:.4g}, accuracy {metrics['accuracy']:.1f} %, spread {metrics['embedding_spread']:.2f}"
    )
    return f"epoch {metrics['epoch']}/2: {values}, images/s ...\n"


def test_the_plan_is_printed_first_and_each_epoch_after_it(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain(make_run(images, tmp_path / "run"))
    said = re.sub(r"images/s .*", "images/s ...", capsys.readouterr().out)
    epochs = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert (
        said
        == f"""plan
  steps          4: 2 epochs of 2 batches of 4
  images         10, of which 2 are left out of each epoch
  learning rate  0.01 -> 0.03; half a cosine
  processes      1, 4 images of a batch each
  BN groups      2, 2 images each
  checkpoints    every 1000 steps and after each epoch, in {tmp_path / "run"}
{"".join(said_of(line) for line in epochs)}wrote {tmp_path / "run" / "checkpoint_last.pth.tar"}
"""
    )


def test_a_finished_run_is_left_as_it_is(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last = pretrain(make_run(images, tmp_path / "run"))
    before = last.stat().st_mtime_ns
    capsys.readouterr()
    assert pretrain(make_run(images, tmp_path / "run")) == last
    assert last.stat().st_mtime_ns == before
    assert capsys.readouterr().out == f"nothing to do: all 2 epochs are in {last}\n"


def test_a_finished_run_cannot_go_on_elsewhere(images: Path, tmp_path: Path) -> None:
    last = pretrain(make_run(images, tmp_path / "run"))
    with pytest.raises(
        UserError, match=r"--resume \S+: expected a run that is not at its end, found all 2 epochs done"
    ):
        pretrain(make_run(images, tmp_path / "other", resume=str(last)))
    assert not (tmp_path / "other").exists()


def test_out_and_resume_of_the_wrong_kind(images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--out \S+file: expected a folder, or a place for one, found \S+file, which"):
        pretrain(make_run(tmp_path / "nothing", tmp_path / "file"))  # before a look at the images
    with pytest.raises(UserError, match=r"--resume \S+: expected auto, never or a checkpoint, found a folder"):
        pretrain(make_run(images, tmp_path / "run", resume=str(images)))


@pytest.mark.parametrize("line", ["{broken", "[1]", '{"loss": 1}', '{"epoch": "x"}', "\x8f"])
def test_damaged_metrics_are_named_before_the_run_goes_on(images: Path, tmp_path: Path, line: str) -> None:
    run = make_run(images, tmp_path / "run", keep_every=1)
    pretrain(run)
    log = run.out / "metrics.jsonl"
    whole = log.read_text()
    log.write_bytes(f"{whole.splitlines()[0]}\n{line}\n".encode("latin-1"))
    (run.out / "checkpoint_last.pth.tar").unlink()  # as after a kill; the previous one is that of epoch 1
    with pytest.raises(
        UserError, match=r"metrics\.jsonl, line 2: expected the metrics of an epoch, found .*; mend the"
    ):
        pretrain(run)
    log.unlink()
    pretrain(run)
    assert json.loads(log.read_text())["epoch"] == 2


def test_resume_refuses_other_settings(images: Path, tmp_path: Path) -> None:
    pretrain(make_run(images, tmp_path / "run"))
    run = make_run(images, tmp_path / "run")
    other = replace(run, recipe=replace(run.recipe, temperature=0.5), seed=3)
    with pytest.raises(UserError, match=r"expected a run of the same settings, found temperature 0.1 there, 0.5 asked"):
        pretrain(other)


def test_resume_refuses_a_file_that_is_no_checkpoint(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "checkpoint_last.pth.tar").write_text("<html>not found</html>")
    with pytest.raises(UserError, match="expected a checkpoint that `mocobench pretrain` wrote"):
        pretrain(make_run(images, out))


def test_resume_refuses_a_checkpoint_that_does_not_say_its_images(images: Path, tmp_path: Path) -> None:
    last = pretrain(make_run(images, tmp_path / "run"))
    content = load(last)
    del content["mocobench"]["data"]
    torch.save(content, last)
    with pytest.raises(UserError, match="expected a checkpoint that `mocobench pretrain` wrote, found KeyError"):
        pretrain(make_run(images, tmp_path / "run"))


def test_resume_never_keeps_an_existing_run(images: Path, tmp_path: Path) -> None:
    pretrain(make_run(images, tmp_path / "run"))
    with pytest.raises(UserError, match=r"--resume never: .* exists"):
        pretrain(make_run(images, tmp_path / "run", resume="never"))


def test_a_run_that_began_elsewhere_goes_on_by_the_same_command(images: Path, tmp_path: Path) -> None:
    half = pretrain(make_run(images, tmp_path / "half", keep_every=1)).with_name("checkpoint_0001.pth.tar")
    begin = make_run(images, tmp_path / "run", resume=str(half), checkpoint_every=1)
    last = pretrain(begin)
    last.unlink()  # as after a kill; the previous one is that of a step of epoch 2
    steps = load(begin.out / "checkpoint_previous.pth.tar")["mocobench"]["progress"]["step"]
    assert steps > 0
    pretrain(begin)
    assert [session["step"] for session in load(last)["mocobench"]["progress"]["sessions"]] == [0, 0, steps]
    with pytest.raises(UserError, match=r"--resume \S+checkpoint_0002\S+: \S+ exists and would be overwritten"):
        pretrain(make_run(images, tmp_path / "run", resume=str(half.with_name("checkpoint_0002.pth.tar"))))


def test_a_model_that_memory_does_not_hold_is_named(images: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"a resnet50 of moco with 10{12} keys: expected enough memory, .* --queue-size"
    ):
        pretrain(make_run(images, tmp_path / "run", differing={"queue_size": 10**12}))


def test_missing_train_folder_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "images" / "val").mkdir(parents=True)
    with pytest.raises(UserError, match="expected train/ with images below it, found val"):
        pretrain(make_run(tmp_path / "images", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "images" / "train" / "a").mkdir(parents=True)
    with pytest.raises(UserError, match=r"train: expected images \(\.jpg .*\), found none"):
        pretrain(make_run(tmp_path / "images", tmp_path / "run"))


def test_fewer_images_than_a_batch(images: Path, tmp_path: Path) -> None:
    run = make_run(images, tmp_path / "run")
    with pytest.raises(UserError, match="--batch-size 64: expected at least as many training images, found 10"):
        pretrain(replace(run, recipe=replace(run.recipe, batch_size=64)))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_unreadable_image_is_named(images: Path, tmp_path: Path, num_workers: int) -> None:
    broken = images / "train" / "a" / "00.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(UserError, match=r"^\S*/a/00\.png: expected an image that can be decoded"):
        pretrain(make_run(images, tmp_path / "run", num_workers=num_workers))


def test_odd_images_are_read_as_rgb(images: Path, tmp_path: Path) -> None:
    folder = images / "train" / "a"
    for mode in ("L", "RGBA", "P", "1"):
        Image.new(mode, (40, 40)).save(folder / f"{mode}.png")
    Image.new("CMYK", (40, 40)).save(folder / "cmyk.jpg")
    assert pretrain(make_run(images, tmp_path / "run")).exists()


def test_loss_that_is_not_finite_keeps_the_last_checkpoint(images: Path, tmp_path: Path) -> None:
    run = make_run(images, tmp_path / "run")
    with pytest.raises(UserError, match="expected a finite loss, found"):
        pretrain(replace(run, recipe=replace(run.recipe, learning_rate=float("nan"))))


@pytest.mark.parametrize("part", ["pretrain.step.Trainer.step", "pretrain.data.Batch.finish"])
def test_a_batch_too_large_for_memory_says_so(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    run = make_run(images, tmp_path / "run")
    # As with a GPU, where it is the step that finishes the views.
    batches = load_batches(OwnParts(training_images(images), run.recipe, 0), num_workers=0, views_on_device=True)
    monkeypatch.setattr("pretrain.train.load_batches", lambda *_, **others: batches)

    def run_out(*arguments: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore of it.")

    monkeypatch.setattr(part, run_out)
    message = (
        r"^--batch-size 4: a step of moco on 4 images: expected enough memory, found CUDA out of memory\. Tried to "
        r"allocate 2\ GiB; use a smaller --batch-size$"
    )
    with pytest.raises(UserError, match=message):
        pretrain(run)


def test_a_run_on_the_cpu_leaves_cuda_alone(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    pinned = []

    def loader(*arguments: Any, pin_memory: bool, **options: Any) -> DataLoader[Any]:
        pinned.append(pin_memory)
        return DataLoader(*arguments, **options)

    monkeypatch.setattr("pretrain.data.DataLoader", loader)
    pretrain(make_run(images, tmp_path / "run"))
    assert pinned == [False]
