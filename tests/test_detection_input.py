"""Images and objects on their way into the detector: answers by hand, and the laws of the stream of batches."""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.detection.embedded.masks import crop_targets, to_rle
from benchmarks.detection.input import (
    Example,
    assemble,
    inference_batches,
    make_example,
    resized_shape,
    training_batches,
)
from benchmarks.detection.protocol import VOC_PROTOCOLS
from benchmarks.detection.records import LabelledImage
from benchmarks.detection.sampler import image_order, images_to_train_on, stream_of_batches
from mocobench.runtime.errors import UserError
from transfer.backbone import InputSpec

PROTOCOL = VOC_PROTOCOLS["smoke"]


def record(path: Path, *, width: int = 40, height: int = 30, **changes: Any) -> LabelledImage:
    """An image with one object, the box (10, 5, 20, 25), drawn nowhere."""
    fields: dict[str, Any] = {
        "boxes": np.array([[10, 5, 20, 25]], np.float32),
        "labels": np.array([0]),
        "difficult": np.array([False]),
        "crowd": np.array([False]),
        "segmentations": ([[10.0, 5, 20, 5, 20, 25, 10, 25]],),
    }
    return LabelledImage(path.stem, path, width, height, **{**fields, **changes})


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 640), (800, 1067)), ((640, 480), (1067, 800)), ((300, 1200), (333, 1333)), ((500, 375), (1067, 800))],
)
def test_resized_shape_by_hand(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert resized_shape(height=size[0], width=size[1], short_side=800, max_long_side=1333) == expected


def test_an_example_is_resized_and_flipped_with_its_objects(tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    pixels = np.zeros((30, 40, 3), np.uint8)
    pixels[5:25, 10:20] = 255
    Image.fromarray(pixels).save(path)
    bitmask = to_rle(torch.from_numpy(pixels[..., 0] > 0))
    for segmentation in ([[10.0, 5, 20, 5, 20, 25, 10, 25]], bitmask):
        labelled = record(path, segmentations=(segmentation,))
        example = make_example(labelled, short_side=60, max_long_side=200, flip=True, masks=True)
        assert example.pixels.shape == (3, 60, 80)
        # Twice the size: x from 20 to 40, mirrored in 80.
        assert example.targets.boxes.tolist() == [[40, 10, 60, 50]]
        assert example.pixels[0, 30, 50] == 255
        assert example.pixels[0, 30, 30] == 0
        assert example.targets.masks is not None
        crop = crop_targets(example.targets.masks, example.targets.boxes, size=14)
        assert crop.all()


def test_crowds_and_boxes_outside_the_image_are_not_trained_on(tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    Image.new("RGB", (40, 30)).save(path)
    labelled = record(
        path,
        boxes=np.array([[1, 1, 5, 5], [2, 2, 9, 9], [50, 5, 60, 9]], np.float32),
        labels=np.array([0, 1, 2]),
        difficult=np.zeros(3, bool),
        crowd=np.array([False, True, False]),
        segmentations=None,
    )
    example = make_example(labelled, short_side=30, max_long_side=200, flip=False, masks=False)
    assert example.targets.labels.tolist() == [0]


def test_an_image_of_another_size_than_annotated_is_named(tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    Image.new("RGB", (41, 30)).save(path)
    with pytest.raises(UserError, match=r"one\.png: expected 40 x 30 pixels as annotated, found 41 x 30"):
        make_example(record(path), short_side=30, max_long_side=200, flip=False, masks=False)


def test_an_error_in_a_worker_stays_one_line(tmp_path: Path) -> None:
    images = (record(tmp_path / "absent.png"),)
    batches = inference_batches(images, PROTOCOL, num_workers=1)
    with pytest.raises(UserError, match=r"^\S*absent\.png: expected an image, found no such file$"):
        next(batches)


def test_weights_bring_their_own_normalisation(tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    Image.new("RGB", (40, 30), (10, 20, 30)).save(path)
    example = make_example(record(path), short_side=30, max_long_side=200, flip=False, masks=False)
    spec = InputSpec(mean=(1.0, 2.0, 3.0), std=(1.0, 1.0, 2.0), channel_order="BGR", max_value=255.0)
    wider = replace(example, pixels=torch.zeros(3, 20, 50, dtype=torch.uint8))
    images, sizes = assemble([example, wider], spec, torch.device("cpu"))
    assert images.shape == (2, 3, 30, 50)
    assert sizes == [(30, 40), (20, 50)]
    torch.testing.assert_close(images[0, :, 0, 0], torch.tensor([30 - 1.0, 20 - 2.0, (10 - 3.0) / 2]))
    assert images[0, :, :, 40:].eq(0).all()
    padded, _ = assemble([example, wider], spec, torch.device("cpu"), size_divisibility=32)
    assert padded.shape == (2, 3, 32, 64)
    assert torch.equal(padded[:, :, :30, :50], images)
    assert padded[:, :, 30:].eq(0).all()
    assert padded[..., 50:].eq(0).all()


# The stream of training batches


def images_of_shapes(folder: Path, shapes: list[tuple[int, int]]) -> tuple[LabelledImage, ...]:
    """One noisy picture per (width, height), called 0.png, 1.png, ..."""
    images = []
    for number, (width, height) in enumerate(shapes):
        path = folder / f"{number}.png"
        pixels = np.random.default_rng(number).integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        images.append(record(path, width=width, height=height))
    return tuple(images)


@pytest.fixture
def mixed(tmp_path: Path) -> tuple[LabelledImage, ...]:
    """Four landscape images, then three upright ones and a square."""
    return images_of_shapes(tmp_path, [(40, 30)] * 4 + [(30, 40)] * 3 + [(30, 30)])


def test_batches_keep_landscape_apart_and_see_every_image_once_a_round(mixed: tuple[LabelledImage, ...]) -> None:
    batches = list(islice(stream_of_batches(mixed, batch_size=2, seed=0), 4))
    for batch in batches:
        assert len({index < 4 for _, index in batch}) == 1
    assert sorted(index for batch in batches for _, index in batch) == list(range(8))
    assert list(islice(stream_of_batches(mixed, batch_size=2, seed=0), 4)) == batches
    assert list(islice(stream_of_batches(mixed, batch_size=2, seed=1), 4)) != batches


def test_ranks_share_one_order(mixed: tuple[LabelledImage, ...]) -> None:
    order = list(islice(image_order(len(mixed), 3), 32))
    for rank in (0, 1):
        stream = stream_of_batches(mixed, batch_size=1, seed=3, rank=rank, world_size=2)
        assert [item for batch in islice(stream, 16) for item in batch] == list(enumerate(order))[rank::2]


def test_a_stream_starts_anywhere_without_reading_what_it_skips(mixed: tuple[LabelledImage, ...]) -> None:
    protocol = replace(PROTOCOL, train_short_sides=(30, 45, 60), batch_size=1)

    def batches(*, first_batch: int, num_batches: int) -> list[list[Example]]:
        return list(
            training_batches(
                mixed, protocol, num_batches=num_batches, seed=3, purpose="test", num_workers=0, first_batch=first_batch
            )
        )

    whole = batches(first_batch=0, num_batches=8)
    skipped = {example.image_id for example in whole[0]} - {
        example.image_id for batch in whole[5:] for example in batch
    }
    for image in mixed:
        if image.image_id in skipped:
            image.path.unlink()
    resumed = batches(first_batch=5, num_batches=3)
    assert skipped
    assert_equal_batches(resumed, whole[5:])


def test_views_vary_and_the_batch_size_can_be_another(mixed: tuple[LabelledImage, ...]) -> None:
    protocol = replace(PROTOCOL, train_short_sides=(30, 45, 60))
    stream = training_batches(
        mixed, protocol, num_batches=10, seed=3, purpose="test", num_workers=0, batch_size=3, rank=1, world_size=2
    )
    batches = list(stream)
    assert {len(batch) for batch in batches} == {3}
    assert {min(example.pixels.shape[1:]) for batch in batches for example in batch} == {30, 45, 60}


def assert_equal_batches(some: list[list[Example]], others: list[list[Example]]) -> None:
    for one, other in zip(some, others, strict=True):
        for a, b in zip(one, other, strict=True):
            assert a.image_id == b.image_id
            assert torch.equal(a.pixels, b.pixels)
            assert torch.equal(a.targets.boxes, b.targets.boxes)


def test_examples_do_not_depend_on_the_number_of_workers(mixed: tuple[LabelledImage, ...]) -> None:
    protocol = replace(PROTOCOL, train_short_sides=(30, 45, 60))
    first, second = (
        list(training_batches(mixed, protocol, num_batches=4, seed=3, purpose="test", num_workers=workers))
        for workers in (0, 2)
    )
    assert_equal_batches(first, second)


def test_images_without_objects_are_not_trained_on(tmp_path: Path) -> None:
    crowd_only = record(tmp_path / "crowd.png", crowd=np.array([True]))
    useful = record(tmp_path / "useful.png")
    assert images_to_train_on((crowd_only, useful)) == (useful,)
    with pytest.raises(UserError, match="expected some with objects, found none among 1"):
        images_to_train_on((crowd_only,))


# Golden values: made by the real Detectron2 with tests/data/make_detection_input_golden.py


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return json.loads((Path(__file__).parent / "data/detection_input_golden.json").read_text())


def test_the_order_of_images_is_detectron2s(golden: dict[str, Any]) -> None:
    for case in golden["orders"]:
        found = islice(image_order(case["num_images"], case["seed"]), len(case["expected"]))
        assert list(found) == case["expected"]


def test_batches_are_detectron2s(golden: dict[str, Any]) -> None:
    groups = golden["groups"]
    images = tuple(record(Path(f"{i}.png"), width=w, height=h) for i, (w, h) in enumerate(groups["shapes"]))
    for case in groups["cases"]:
        stream = stream_of_batches(
            images,
            batch_size=case["batch_size"],
            seed=groups["seed"],
            rank=case["rank"],
            world_size=case["num_ranks"],
        )
        found = [[index for _, index in batch] for batch in islice(stream, len(case["expected"]))]
        assert found == case["expected"]


def test_views_are_detectron2s(golden: dict[str, Any], tmp_path: Path) -> None:
    views = golden["views"]
    count = len(views["boxes"])
    for case in views["cases"]:
        width, height = case["size"]
        y, x, channel = np.mgrid[:height, :width, :3]
        pixels = (x * x // 7 + 3 * y * (1 + channel) + x * y // 11) % 256
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "picture.png")
        labelled = record(
            tmp_path / "picture.png",
            width=width,
            height=height,
            boxes=np.array(views["boxes"], np.float32),
            labels=np.arange(count),
            difficult=np.zeros(count, bool),
            crowd=np.zeros(count, bool),
            segmentations=([views["polygon"]],) * count,
        )
        sizes = {name: case[name] for name in ("short_side", "max_long_side", "flip")}
        example, expected = make_example(labelled, masks=True, **sizes), case["expected"]
        assert list(example.pixels.shape) == expected["shape"]
        assert example.pixels[:, :: views["sampled"], :: views["sampled"]].tolist() == expected["pixels"]
        assert example.targets.labels.tolist() == expected["labels"]
        torch.testing.assert_close(example.targets.boxes, torch.tensor(expected["boxes"]), rtol=1e-6, atol=1e-5)
        assert example.targets.masks is not None
        np.testing.assert_array_equal(example.targets.masks[0][0], expected["polygon"])
