"""Views: the drawn record, what applying it does, and the distributions of torchvision's own transforms."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from mocobench.runtime.seeds import torch_generator
from pretrain.recipes import AUG_PLUS, AUG_V1
from pretrain.views import View, apply_view, draw_view

PLAIN = View(crop=(0, 0, 4, 4), jitter=None, grayscale=False, blur=None, flip=False)


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def drawn(augmentation, count: int, *, width: int = 460, height: int = 395) -> list[View]:
    generator = torch_generator(0, "test")
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


def test_probabilities() -> None:
    views = drawn(AUG_PLUS, 4000)
    shares = {
        "jitter": np.mean([view.jitter is not None for view in views]),
        "grayscale": np.mean([view.grayscale for view in views]),
        "blur": np.mean([view.blur is not None for view in views]),
        "flip": np.mean([view.flip for view in views]),
    }
    assert shares == pytest.approx({"jitter": 0.8, "grayscale": 0.2, "blur": 0.5, "flip": 0.5}, abs=0.03)
    assert all(view.jitter is not None and view.blur is None for view in drawn(AUG_V1, 200))


def test_ranges() -> None:
    views = drawn(AUG_PLUS, 2000)
    blurs = [view.blur for view in views if view.blur is not None]
    assert 0.1 <= min(blurs) < 0.2
    assert 1.9 < max(blurs) <= 2.0
    hues = [dict(view.jitter)["hue"] for view in views if view.jitter]
    assert -0.1 <= min(hues) < -0.095
    orders = {tuple(name for name, _ in view.jitter) for view in views if view.jitter}
    assert len(orders) == 24  # every order of the four parts


def test_crops_follow_torchvisions_distribution() -> None:
    count, width, height = 6000, 460, 395
    ours = torch.tensor([view.crop for view in drawn(AUG_PLUS, count, width=width, height=height)]).float()
    torch.manual_seed(1)
    blank = torch.zeros(3, height, width)
    theirs = torch.tensor(
        [transforms.RandomResizedCrop.get_params(blank, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(count)]
    ).float()
    for quantile in (0.1, 0.5, 0.9):
        difference = (ours.quantile(quantile, dim=0) - theirs.quantile(quantile, dim=0)).abs()
        assert (difference < 8).all(), difference  # pixels, of 395 to 460


def test_a_very_long_image_gets_a_centred_crop_within_the_ratio() -> None:
    (view,) = drawn(AUG_PLUS, 1, width=1000, height=10)
    top, left, height, width = view.crop
    assert (top, height, width) == (0, 10, 13)
    assert left == (1000 - 13) // 2
