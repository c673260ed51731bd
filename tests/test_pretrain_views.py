"""Views: the drawn record, what applying it does, and the distributions of torchvision's own transforms."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from mocobench.runtime.seeds import python_generator
from pretrain.moco_recipes import AUG_PLUS, AUG_V1
from pretrain.recipes import RECIPES
from pretrain.settings import Augmentation
from pretrain.views import View, apply_view, draw_view

SIMCLR = RECIPES["simclr-4096-1000ep"].augmentation
PLAIN = View(crop=(0, 0, 4, 4), jitter=None, grayscale=False, blur=None, flip=False)


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def drawn(augmentation: Augmentation, count: int, *, width: int = 460, height: int = 395) -> list[View]:
    generator = python_generator(0, "test")
    return [draw_view(augmentation, width=width, height=height, generator=generator) for _ in range(count)]


def test_whole_crop_at_its_own_size_changes_nothing() -> None:
    image = picture(4, 4)
    assert apply_view(image, PLAIN, order=AUG_PLUS.order, size=4).tobytes() == image.tobytes()


def test_flip_mirrors_left_and_right() -> None:
    image = picture(4, 4)
    flipped = apply_view(image, View((0, 0, 4, 4), None, False, None, flip=True), order=AUG_V1.order, size=4)
    assert np.array_equal(np.asarray(flipped), np.asarray(image)[:, ::-1])


def test_grayscale_is_the_luma_of_rec_601() -> None:
    red = Image.new("RGB", (4, 4), (255, 0, 0))
    gray = apply_view(red, View((0, 0, 4, 4), None, True, None, False), order=AUG_PLUS.order, size=4)
    assert gray.getpixel((0, 0)) == (76, 76, 76)  # 0.299 * 255


def test_brightness_and_order_of_the_jitter() -> None:
    gray = Image.new("RGB", (4, 4), (100, 100, 100))
    view = View((0, 0, 4, 4), (("brightness", 1.4), ("contrast", 0.6)), False, None, False)
    # brightness: 140 everywhere; contrast blends with the mean, which is 140 too
    assert apply_view(gray, view, order=AUG_PLUS.order, size=4).getpixel((1, 1)) == (140, 140, 140)


def test_crop_equals_torchvision_for_the_same_rectangle() -> None:
    image = picture(50, 40)
    view = View((5, 7, 20, 30), None, False, None, False)
    ours = apply_view(image, view, order=("crop",), size=16)
    theirs = transforms.functional.resized_crop(image, 5, 7, 20, 30, [16, 16])
    assert ours.tobytes() == theirs.tobytes()


def test_v1_applies_grayscale_before_jitter() -> None:
    assert AUG_V1.order.index("grayscale") < AUG_V1.order.index("jitter")
    assert AUG_PLUS.order.index("jitter") < AUG_PLUS.order.index("grayscale") < AUG_PLUS.order.index("blur")


def test_the_same_generator_state_draws_the_same_view() -> None:
    assert drawn(AUG_PLUS, 5) == drawn(AUG_PLUS, 5)


def largest_gap(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Between two empirical distribution functions (Kolmogorov and Smirnov), in units of what chance allows.

    Two samples of one distribution exceed 1 once in a thousand times.
    """
    values = np.sort(np.concatenate((ours, theirs)))
    gap = [np.searchsorted(np.sort(sample), values, side="right") / len(sample) for sample in (ours, theirs)]
    return float(np.abs(gap[0] - gap[1]).max() / (1.95 * np.sqrt(1 / len(ours) + 1 / len(theirs))))


def test_largest_gap_tells_distributions_apart() -> None:
    sample = np.linspace(0, 1, 1000)
    assert largest_gap(sample, sample) == 0
    assert largest_gap(sample, sample**1.3) > 1


COUNTS = [5000, pytest.param(100_000, marks=pytest.mark.slow)]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize(("width", "height"), [(460, 395), (300, 900)])
@pytest.mark.parametrize("augmentation", [AUG_PLUS, SIMCLR], ids=["moco", "simclr"])
def test_crops_follow_torchvisions_distribution(
    augmentation: Augmentation, count: int, width: int, height: int
) -> None:
    ours = np.array([view.crop for view in drawn(augmentation, count, width=width, height=height)])
    torch.manual_seed(1)
    blank = torch.zeros(1).expand(3, height, width)
    get_params = transforms.RandomResizedCrop.get_params
    scale, ratio = list(augmentation.crop_scale), list(augmentation.crop_ratio)
    theirs = np.array([get_params(blank, scale, ratio) for _ in range(count)])
    for side in range(4):
        assert largest_gap(ours[:, side], theirs[:, side]) < 1, ("top", "left", "height", "width")[side]
    assert largest_gap(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3]) < 1
    assert largest_gap(ours[:, 2] / ours[:, 3], theirs[:, 2] / theirs[:, 3]) < 1


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("augmentation", [AUG_PLUS, AUG_V1, SIMCLR], ids=["v2", "v1", "simclr"])
def test_jitter_follows_torchvisions_distribution(augmentation: Augmentation, count: int) -> None:
    jitters = [view.jitter for view in drawn(augmentation, count) if view.jitter is not None]
    theirs = transforms.ColorJitter(*augmentation.jitter)
    torch.manual_seed(1)
    bounds = (theirs.brightness, theirs.contrast, theirs.saturation, theirs.hue)
    params = [transforms.ColorJitter.get_params(*bounds) for _ in range(count)]
    for part, name in enumerate(("brightness", "contrast", "saturation", "hue")):
        factors = np.array([dict(jitter)[name] for jitter in jitters])
        assert largest_gap(factors, np.array([param[part + 1] for param in params])) < 1, name
        # Where each part comes in the order: uniform over the four places, as a permutation gives it.
        places = np.bincount([[step for step, _ in jitter].index(name) for jitter in jitters], minlength=4)
        assert places / len(jitters) == pytest.approx([0.25] * 4, abs=4 * np.sqrt(0.25 * 0.75 / len(jitters)))
    assert len({tuple(name for name, _ in jitter) for jitter in jitters}) == 24


@pytest.mark.parametrize("count", COUNTS)
def test_blur_and_probabilities(count: int) -> None:
    views = drawn(AUG_PLUS, count)
    sigmas = np.array([view.blur for view in views if view.blur is not None])
    assert largest_gap(sigmas, np.linspace(0.1, 2.0, count)) < 1
    shares = {
        0.8: np.mean([view.jitter is not None for view in views]),
        0.2: np.mean([view.grayscale for view in views]),
        0.5: np.mean([[view.blur is not None, view.flip] for view in views], axis=0),
    }
    for probability, share in shares.items():
        assert share == pytest.approx(probability, abs=4 * np.sqrt(probability * (1 - probability) / count))
    assert all(view.jitter is not None and view.blur is None for view in drawn(AUG_V1, 200))


def test_a_very_long_image_gets_a_centred_crop_within_the_ratio() -> None:
    (view,) = drawn(AUG_PLUS, 1, width=1000, height=10)
    top, left, height, width = view.crop
    assert (top, height, width) == (0, 10, 13)
    assert left == (1000 - 13) // 2
