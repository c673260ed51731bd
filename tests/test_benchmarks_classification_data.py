"""Labelled folders: what is refused, how labels are matched, what views depend on."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_classification import PROTOCOLS, TASKS, tiny_network
from torch.utils.data import DataLoader
from torchvision.transforms import functional as F

from benchmarks.classification.data import CenterView, RandomView, SquashedView, image_batches, read_splits
from benchmarks.classification.protocol import KnnProtocol, LinearProtocol
from benchmarks.context import RunContext
from mocobench.runtime.errors import UserError
from transfer.network import random_backbone

RANDOM = RandomView(size=16, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), flip_probability=0.5)
CENTER = CenterView(resize=20, size=16)


def picture(path: Path, *, mode: str = "RGB", size: tuple[int, int] = (24, 20), seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = torch.randint(256, (3, size[1], size[0]), generator=torch.Generator().manual_seed(seed))
    F.to_pil_image(pixels.to(torch.uint8)).convert(mode).save(path)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for split, classes in (("train", ("cat", "dog", "fox")), ("val", ("dog", "fox"))):
        for name in classes:
            for i in range(3):
                picture(tmp_path / split / name / f"{i}.png", seed=i)
    return tmp_path


def test_labels_follow_class_names_not_positions(folders: Path) -> None:
    splits = read_splits(folders)
    assert splits.train.classes == ("cat", "dog", "fox")
    # In val/, dog and fox are the first and second folder; by name they are classes 1 and 2.
    assert splits.val.labels == (1, 1, 1, 2, 2, 2)
    assert splits.val.classes == splits.train.classes
    assert splits.identity.classes == 3
    assert {name: split.images for name, split in splits.identity.splits.items()} == {"train": 9, "val": 6}


def test_list_hash_changes_with_the_list(folders: Path) -> None:
    before = read_splits(folders).identity.splits
    picture(folders / "train" / "cat" / "more.png")
    after = read_splits(folders).identity.splits
    assert before["train"].list_sha256 != after["train"].list_sha256
    assert before["val"] == after["val"]


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_missing_split_is_named_with_what_is_there(folders: Path, split: str) -> None:
    (folders / split).rename(folders / "test")
    other = {"train": "val", "val": "train"}[split]
    with pytest.raises(UserError, match=rf"expected {split}/ with .*, found {', '.join(sorted((other, 'test')))}$"):
        read_splits(folders)


def test_a_missing_folder_and_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: expected a folder that holds train/ and val/, found no such folder"):
        read_splits(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"expected train/ .* found nothing"):
        read_splits(tmp_path)


def test_a_class_folder_without_images(folders: Path) -> None:
    (folders / "train" / "ape").mkdir()
    with pytest.raises(UserError, match=r"train/ape: expected images .* found none"):
        read_splits(folders)


def test_a_train_folder_without_class_folders(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "loose.png")
    picture(tmp_path / "val" / "cat" / "0.png")
    with pytest.raises(UserError, match="train: expected one sub-folder of images per class, found no sub-folders"):
        read_splits(tmp_path)


def test_validation_classes_that_training_lacks_are_listed(folders: Path) -> None:
    for i in range(6):
        picture(folders / "val" / f"new{i}" / "0.png")
    with pytest.raises(
        UserError, match=r"val: expected classes that .*train has too, found new0, .*, new4, \.\.\. 1 more"
    ):
        read_splits(folders)


def test_one_class_is_refused(tmp_path: Path) -> None:
    for split in ("train", "val"):
        picture(tmp_path / split / "cat" / "0.png")
    with pytest.raises(UserError, match="expected at least two class folders, found one, cat"):
        read_splits(tmp_path)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_unreadable_image_is_one_line_that_names_it(folders: Path, num_workers: int) -> None:
    broken = folders / "train" / "dog" / "1.png"
    broken.write_bytes(broken.read_bytes()[:60])
    train = read_splits(folders).train
    with pytest.raises(UserError, match=r"dog/1\.png: expected an image that can be decoded") as caught:
        list(image_batches(train, range(9), view=CENTER, batch_size=2, seed=0, num_workers=num_workers))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("task", ["linear", "knn", "semi"])
def test_a_run_on_the_processor_leaves_a_gpu_alone(
    task: str, bright_and_dark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = []

    def loader(*arguments: Any, **keywords: Any) -> Any:
        pinned.append(keywords["pin_memory"])
        return DataLoader(*arguments, **keywords)

    monkeypatch.setattr("benchmarks.classification.data.DataLoader", loader)
    monkeypatch.setattr("benchmarks.classification.fine_tuning.build_network", tiny_network)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    context = RunContext(seed=0, device=torch.device("cpu"), precision="fp32", num_workers=0)
    TASKS[task](random_backbone("resnet18", 0), bright_and_dark, PROTOCOLS[task], context)
    assert set(pinned) == {False}


@pytest.mark.parametrize(
    ("mode", "suffix"), [("L", "png"), ("RGBA", "png"), ("P", "png"), ("1", "png"), ("CMYK", "jpg")]
)
def test_images_of_every_mode_become_rgb(folders: Path, mode: str, suffix: str) -> None:
    picture(folders / "train" / "cat" / f"odd.{suffix}", mode=mode)
    train = read_splits(folders).train
    odd = train.paths.index(folders / "train" / "cat" / f"odd.{suffix}")
    ((images, labels),) = image_batches(train, [odd], view=CENTER, batch_size=2, seed=0)
    assert images.shape == (1, 3, 16, 16)
    assert images.dtype == torch.uint8
    assert labels.tolist() == [0]


def test_an_exif_rotated_image_is_seen_upright(folders: Path) -> None:
    upright = Image.new("RGB", (20, 20))
    upright.paste((255, 255, 255), (0, 0, 20, 10))  # the upper half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after turning 90 degrees clockwise
    turned = folders / "train" / "cat" / "turned.png"
    upright.rotate(90).save(turned, exif=exif)  # stored turned 90 degrees anticlockwise
    train = read_splits(folders).train
    ((images, _),) = image_batches(train, [train.paths.index(turned)], view=CENTER, batch_size=1, seed=0)
    assert images[0, :, :7].min() == 255
    assert images[0, :, 9:].max() == 0


def test_the_center_view_is_the_middle_of_the_resized_image() -> None:
    image = Image.new("RGB", (60, 30))
    image.paste((255, 255, 255), (20, 10, 40, 20))
    # 60 x 30 -> 40 x 20, the white part to 13.3..26.7 x 6.7..13.3; the central 16 x 16 starts at (12, 2).
    view = F.pil_to_tensor(CENTER(image, 0))[0]
    assert view.shape == (16, 16)
    assert view[8, 8] == 255
    assert view[8, 0] == view[8, 15] == 0
    assert view[0].max() == view[15].max() == 0


def test_the_squashed_view_shows_all_of_an_image() -> None:
    # 40 x 20 pixels in four strips from left to right, of which the centre's square shows the two in the middle.
    strips = torch.tensor([0, 80, 160, 240], dtype=torch.uint8).repeat_interleave(10).expand(3, 20, 40)
    image = F.to_pil_image(strips.contiguous())
    squashed, cropped = (F.pil_to_tensor(view(image, 0))[0] for view in (SquashedView(20, 8), CenterView(20, 20)))
    assert squashed.shape == (8, 8)
    assert squashed[4, ::7].tolist() == [0, 240]
    assert cropped[10, ::19].tolist() == [80, 160]


def test_random_views_depend_on_seed_epoch_and_image_alone(folders: Path) -> None:
    train = read_splits(folders).train

    def views(
        order: list[int], *, batch_size: int = 4, workers: int = 0, seed: int = 0, epoch: int = 0
    ) -> torch.Tensor:
        batches = image_batches(
            train, order, view=RANDOM, batch_size=batch_size, seed=seed, epoch=epoch, num_workers=workers
        )
        seen = torch.cat([images for images, _ in batches])
        return seen[torch.tensor(order).argsort()]

    first = views(list(range(9)))
    assert torch.equal(first, views([8, 3, 5, 0, 1, 2, 4, 6, 7], batch_size=5))
    assert torch.equal(first, views(list(range(9)), workers=2))
    assert not torch.equal(first, views(list(range(9)), epoch=1))
    assert not torch.equal(first, views(list(range(9)), seed=1))


def test_random_view_leaves_the_global_generator_alone() -> None:
    image = Image.new("RGB", (24, 20))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    RANDOM(image, 5)
    assert torch.equal(before, torch.get_rng_state())


def test_random_views_flip_half_of_the_time() -> None:
    image = Image.new("RGB", (32, 32))
    image.paste((255, 255, 255), (0, 0, 16, 32))  # the left half is white
    whole = RandomView(size=32, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip_probability=0.5)
    flipped = [F.pil_to_tensor(whole(image, seed))[0, 0, 0].item() == 0 for seed in range(200)]
    assert 70 < sum(flipped) < 130  # 100 +- 4 standard deviations


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "--epochs 0: expected a number above 0"),
        ({"learning_rate": (1.0, -1.0)}, "--learning-rate 1.0,-1.0: expected one or more numbers above 0"),
        ({"weight_decay": ()}, "--weight-decay none: expected one or more numbers from 0 on"),
        ({"held_out": 1.0}, "--held-out 1.0: expected a fraction above 0 and below 1"),
        ({"optimizer": "adam"}, "--optimizer adam: expected one of sgd, nesterov, lars"),
        ({"schedule": "flat"}, "--schedule flat: expected one of step, cosine-per-epoch, cosine-per-step"),
        ({"image_size": 300}, "--image-size 300: expected at most --test-resize 256"),
        ({"train_views": "twice"}, "--train-views twice: expected one of random-every-epoch, center-once"),
        ({"crop_scale": (1.0, 0.5)}, "--crop-scale 1.0,0.5: expected two bounds LOW,HIGH"),
    ],
)
def test_linear_settings_out_of_range(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LinearProtocol(id="x", expected_images=(), **settings)  # type: ignore[arg-type]


def test_knn_settings_out_of_range() -> None:
    with pytest.raises(UserError, match=r"--neighbors 0,5: expected one or more numbers above 0"):
        KnnProtocol(id="x", expected_images=(), neighbors=(0, 5))
    with pytest.raises(UserError, match=r"--temperature 0\.0: expected a number above 0"):
        KnnProtocol(id="x", expected_images=(), temperature=0.0)
