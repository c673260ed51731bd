"""Views on tensors: answers by hand, then the law that they agree with PIL's for the same drawn view.

Bounds are in levels of 255. From the same crop a view is within 2 of PIL's in every pixel. The crop itself is within 2,
rare as that is, and what comes after can widen it: jitter stretches it, and next to gray a single level turns the hue
by up to a third of the circle. So a whole view is within 24 in its worst pixel, and within 1 on average.
"""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_pretraining import make_run
from torchvision import transforms
from torchvision.transforms.functional import pil_to_tensor

import pretrain
from mocobench.runtime.images import read_rgb
from mocobench.runtime.seeds import python_generator
from pretrain import batch_views
from pretrain.batch_views import DEVICE_FAULTS, ViewTable, crop_views, find_kernels
from pretrain.moco_recipes import AUG_PLUS
from pretrain.pixel_operations import box_radius
from pretrain.recipes import RECIPES
from pretrain.settings import Augmentation
from pretrain.step import make_normaliser
from pretrain.views import View, apply_view, draw_view

SIZE = 48
PLAIN = View(crop=(0, 0, SIZE, SIZE), jitter=None, grayscale=False, blur=None, flip=False)
AFTER_CROP = AUG_PLUS.order[1:]
# Every set of views that a paper's recipe has.
VIEWS = {
    name: RECIPES[recipe].augmentation
    for name, recipe in {
        "v1": "moco-v1-200ep",
        "v2": "moco-v2-200ep",
        "cifar": "moco-v2-cifar10",
        "simclr": "simclr-4096-1000ep",
    }.items()
}


def apply_views(images: torch.Tensor, views: list[View], *, order: tuple[str, ...], size: int) -> torch.Tensor:
    return batch_views.apply_views(images, ViewTable.of(views), order=order, size=size)


def changed(pixel: tuple[int, int, int], *parts: tuple[str, float]) -> list[int]:
    """What jitter makes of an image of one colour."""
    image = torch.tensor(pixel, dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    out = apply_views(image, [replace(PLAIN, jitter=parts)], order=("jitter",), size=4)
    assert (out == out[..., :1, :1]).all()
    return out[0, :, 0, 0].tolist()


def test_jitter_by_hand() -> None:
    assert changed((100, 150, 200), ("brightness", 1.4)) == [140, 210, 255]
    assert changed((100, 100, 100), ("brightness", 1.4), ("contrast", 0.6)) == [140, 140, 140]
    # luma (100 * 19595 + 150 * 38470 + 200 * 7471) / 65536 = 140.75, so 141; 141 - 0.5 * 41 = 120.5 is cut off
    assert changed((100, 150, 200), ("saturation", 0.5)) == [120, 145, 170]
    assert changed((255, 0, 0), ("hue", 85 / 255)) == [0, 255, 0]  # a third of a circle
    assert changed((255, 0, 0), ("hue", -86 / 255)) == [0, 0, 255]  # 256 - 86 = 170 of 255
    assert changed((80, 80, 80), ("hue", 0.3)) == [80, 80, 80]


def test_contrast_blends_with_the_mean_of_its_own_image() -> None:
    image = torch.tensor([[0, 100], [200, 255]], dtype=torch.uint8).view(2, 1, 1, 2).expand(2, 3, 1, 2)
    views = [replace(PLAIN, jitter=(("contrast", 0.5),))] * 2
    out = apply_views(image.repeat(1, 1, 2, 1), views, order=("jitter",), size=2)
    assert out[:, 0, 0].tolist() == [[25, 75], [214, 241]]  # means 50, and 227.5 rounded to 228


def test_blur_of_a_point_by_hand() -> None:
    sigma = 2**0.5
    assert box_radius(sigma) == pytest.approx(1)  # the box (1, 1, 1) / 3, applied three times
    image = torch.zeros(1, 3, 9, 9, dtype=torch.uint8)
    image[:, :, 4, :] = 243
    out = apply_views(image, [replace(PLAIN, blur=sigma)], order=("blur",), size=9)
    assert out[0, 0, :, 4].tolist() == [0, 9, 27, 54, 63, 54, 27, 9, 0]  # 243 * (1, 3, 6, 7, 6, 3, 1) / 27


def test_grayscale_and_flip_by_hand() -> None:
    image = torch.zeros(2, 3, 2, 2, dtype=torch.uint8)
    image[:, 0, :, 0] = 255
    out = apply_views(image, [replace(PLAIN, grayscale=True), replace(PLAIN, flip=True)], order=AFTER_CROP, size=2)
    assert out[0, :, 0].tolist() == [[76, 0]] * 3  # 0.299 * 255
    assert out[1, 0, 0].tolist() == [0, 255]


def pictures(count: int, *, width: int = SIZE, height: int = SIZE) -> list[Image.Image]:
    """Noise, smooth colours, and few flat colours (ties, grays, pure colours) in turn."""
    generator = np.random.default_rng(0)
    found = []
    for number in range(count):
        kind = number % 3
        shape, high = ((height, width), 256) if kind == 0 else ((5, 6), 256) if kind == 1 else ((7, 9), 3)
        pixels = generator.integers(0, high, (*shape, 3)) * (127 if kind == 2 else 1)
        image = Image.fromarray(pixels.astype(np.uint8))
        found.append(image.resize((width, height), Image.Resampling.NEAREST if kind == 2 else Image.Resampling.BICUBIC))
    return found


def difference(ours: torch.Tensor, theirs: list[Image.Image]) -> tuple[float, int]:
    """(largest mean over an image, largest in a pixel), in levels."""
    reference = torch.stack([pil_to_tensor(image) for image in theirs])
    gaps = (ours.int() - reference.int()).abs().flatten(1)
    return gaps.float().mean(dim=1).max().item(), int(gaps.max())


def drawn(augmentation: Augmentation, images: list[Image.Image], *, seed: int = 0) -> list[View]:
    generator = python_generator(seed, "test")
    return [draw_view(augmentation, width=i.width, height=i.height, generator=generator) for i in images]


OPERATIONS = {
    "brightness": ("jitter", 0),
    "contrast": ("jitter", 0),
    "saturation": ("jitter", 0),
    "hue": ("jitter", 1),
    "grayscale": ("grayscale", 0),
    "blur": ("blur", 1),
    "flip": ("flip", 0),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_agrees_with_pil(name: str) -> None:
    operation, worst_allowed = OPERATIONS[name]
    images = pictures(42)
    strengths = np.linspace(0, 1, len(images)).tolist()
    views = {
        "jitter": [replace(PLAIN, jitter=((name, s - 0.5 if name == "hue" else 2 * s),)) for s in strengths],
        "grayscale": [replace(PLAIN, grayscale=True)] * len(images),
        "blur": [replace(PLAIN, blur=0.1 + 3.9 * s) for s in strengths],
        "flip": [replace(PLAIN, flip=True)] * len(images),
    }[operation]
    ours = apply_views(torch.stack([pil_to_tensor(i) for i in images]), views, order=(operation,), size=SIZE)
    theirs = [apply_view(i, view, order=(operation,), size=SIZE) for i, view in zip(images, views, strict=True)]
    mean, worst = difference(ours, theirs)
    assert worst <= worst_allowed
    assert mean <= 0.02


@pytest.mark.parametrize("size", [24, 48, 100])
def test_crops_agree_with_pil(size: int) -> None:
    images = pictures(30, width=92, height=79)
    views = drawn(AUG_PLUS, images)
    theirs = [apply_view(i, view, order=("crop",), size=size) for i, view in zip(images, views, strict=True)]
    mean, worst = difference(cropped(images, views, size), theirs)
    assert worst <= 2
    assert mean <= 0.3


@pytest.mark.parametrize("augmentation", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("count", [150, pytest.param(6000, marks=pytest.mark.slow)])
def test_whole_views_agree_with_pil(augmentation: Augmentation, count: int) -> None:
    images = pictures(count, width=92, height=79)
    views = drawn(augmentation, images)
    order = augmentation.order
    theirs = [apply_view(i, view, order=order, size=SIZE) for i, view in zip(images, views, strict=True)]
    crops = [apply_view(i, view, order=("crop",), size=SIZE) for i, view in zip(images, views, strict=True)]
    from_same_crop = apply_views(torch.stack([pil_to_tensor(c) for c in crops]), views, order=order[1:], size=SIZE)
    mean, worst = difference(from_same_crop, theirs)
    assert worst <= 2
    assert mean <= 0.1
    mean, worst = difference(by_workers(images, views, augmentation), theirs)
    assert worst <= 24
    assert mean <= 1


def cropped(images: list[Image.Image], views: list[View], size: int) -> torch.Tensor:
    return torch.cat([crop_views(pil_to_tensor(i), [view], size=size) for i, view in zip(images, views, strict=True)])


def by_workers(
    images: list[Image.Image], views: list[View], augmentation: Augmentation, size: int = SIZE
) -> torch.Tensor:
    return apply_views(cropped(images, views, size), views, order=augmentation.order[1:], size=size)


@pytest.mark.parametrize("augmentation", VIEWS.values(), ids=VIEWS)
def test_whole_views_of_photographs_agree_with_pil(augmentation: Augmentation, shared_data: Path) -> None:
    paths = sorted((shared_data / "voc2012-mini").rglob("*.jpg"))[:16]
    images = [read_rgb(path) for path in paths]
    views = drawn(augmentation, images)
    order = augmentation.order
    theirs = [apply_view(i, view, order=order, size=224) for i, view in zip(images, views, strict=True)]
    mean, worst = difference(by_workers(images, views, augmentation, size=224), theirs)
    assert worst <= 24
    assert mean <= 1


def test_a_view_does_not_depend_on_the_batch_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(40, width=92, height=79)
    views = drawn(AUG_PLUS, images)
    crops = cropped(images, views, SIZE)
    one_by_one = apply_views(crops, views, order=AFTER_CROP, size=SIZE)
    monkeypatch.setattr(batch_views, "VIEWS_AT_ONCE_ON_CPU", 40)
    for given in (crops, crops.float(), crops.contiguous(memory_format=torch.channels_last)):
        before = given.clone()
        together = apply_views(given, views, order=AFTER_CROP, size=SIZE)
        assert torch.equal(together, one_by_one)
        assert torch.equal(given, before)  # what was given is left as it was


def test_mixed_precision_changes_nothing() -> None:
    images = pictures(6, width=92, height=79)
    views = drawn(AUG_PLUS, images)
    crops = cropped(images, views, SIZE)
    expected = apply_views(crops, views, order=AFTER_CROP, size=SIZE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(apply_views(crops, views, order=AFTER_CROP, size=SIZE), expected)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_crops_first_and_names_known_operations(name: str) -> None:
    augmentation = RECIPES[name].augmentation
    assert augmentation.order[0] == "crop"  # workers crop; what follows runs on crops
    images = pictures(2, width=20, height=20)
    assert by_workers(images, drawn(augmentation, images), augmentation, size=16).shape == (2, 3, 16, 16)


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    images = pictures(60, width=92, height=79)
    views = drawn(AUG_PLUS, images)
    crops = cropped(images, views, SIZE)
    on_cpu = apply_views(crops, views, order=AFTER_CROP, size=SIZE)
    on_cuda = apply_views(crops.cuda(), views, order=AFTER_CROP, size=SIZE)
    gaps = (on_cuda.cpu().int() - on_cpu.int()).abs()
    assert gaps.max() <= 1
    assert (gaps > 0).float().mean() < 1 / 1000


def test_a_device_without_kernels_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    find_kernels.cache_clear()
    assert find_kernels("cpu") is None
    assert capsys.readouterr().out == ""
    assert [find_kernels("meta") for _ in range(2)] == [None, None]
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert said.startswith("views are made without kernels, which takes longer: Triton cannot make them here (")


@pytest.mark.parametrize("fault", DEVICE_FAULTS)
def test_a_device_that_fails_is_not_taken_for_one_without_kernels(
    fault: type[RuntimeError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*tensors: torch.Tensor) -> None:
        raise fault("the device's own words")

    monkeypatch.setattr(pretrain, "pixel_kernels", SimpleNamespace(jitter=fail), raising=False)
    find_kernels.cache_clear()
    with pytest.raises(fault, match="the device's own words"):
        find_kernels("meta")


def test_normalise_equals_torchvisions() -> None:
    (image,) = pictures(1)
    theirs = transforms.Compose([transforms.ToTensor(), transforms.Normalize(AUG_PLUS.mean, AUG_PLUS.std)])(image)
    ours = make_normaliser(make_run(Path(), Path()))(pil_to_tensor(image)[None])[0]
    torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=0)
