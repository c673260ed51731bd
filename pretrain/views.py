"""Views: what is random in a view is drawn first, as a small record; then the record is applied to an image.

Drawing follows the distributions of torchvision's RandomResizedCrop, ColorJitter and the authors' GaussianBlur;
applying uses PIL, operation for operation as the authors' pipeline does (MoCo v2, section 3 and code). It is the
reference for `pretrain.batch_views`, which applies the same record to tensors.
"""

import math
import random
from dataclasses import dataclass

from PIL import Image, ImageFilter, ImageOps
from torchvision.transforms import functional as F

from pretrain.settings import Augmentation

CROP_ATTEMPTS = 10


@dataclass(frozen=True)
class View:
    """One drawn view. `crop` is (top, left, height, width) in pixels; None marks an operation that is left out.

    `jitter` lists (operation, factor) in the order of application; `blur` is the sigma in pixels of the view.
    """

    crop: tuple[int, int, int, int]
    jitter: tuple[tuple[str, float], ...] | None
    grayscale: bool
    blur: float | None
    flip: bool


def draw_view(augmentation: Augmentation, *, width: int, height: int, generator: random.Random) -> View:
    """Draw a view of a `width` x `height` image."""
    return View(
        crop=_draw_crop(augmentation, width=width, height=height, generator=generator),
        jitter=_draw_jitter(augmentation, generator),
        grayscale=_chance(augmentation.grayscale_probability, generator),
        blur=_draw_blur(augmentation, generator),
        flip=_chance(augmentation.flip_probability, generator),
    )


def _uniform(low: float, high: float, generator: random.Random) -> float:
    return low + (high - low) * generator.random()


def _chance(probability: float, generator: random.Random) -> bool:
    return generator.random() < probability


def _integer(upper: int, generator: random.Random) -> int:
    """Uniform in [0, upper]."""
    return int(generator.random() * (upper + 1))


def _draw_crop(
    augmentation: Augmentation, *, width: int, height: int, generator: random.Random
) -> tuple[int, int, int, int]:
    low_ratio, high_ratio = augmentation.crop_ratio
    for _ in range(CROP_ATTEMPTS):
        area = width * height * _uniform(*augmentation.crop_scale, generator)
        ratio = math.exp(_uniform(math.log(low_ratio), math.log(high_ratio), generator))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return _integer(height - h, generator), _integer(width - w, generator), h, w
    # No draw fitted (a very long image): the largest centred crop within the ratio bounds.
    ratio = min(max(width / height, low_ratio), high_ratio)
    w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
    return (height - h) // 2, (width - w) // 2, h, w


def _draw_jitter(augmentation: Augmentation, generator: random.Random) -> tuple[tuple[str, float], ...] | None:
    if not _chance(augmentation.jitter_probability, generator):
        return None
    brightness, contrast, saturation, hue = augmentation.jitter
    factors = {
        "brightness": _uniform(max(0.0, 1 - brightness), 1 + brightness, generator),
        "contrast": _uniform(max(0.0, 1 - contrast), 1 + contrast, generator),
        "saturation": _uniform(max(0.0, 1 - saturation), 1 + saturation, generator),
        "hue": _uniform(-hue, hue, generator),
    }
    return tuple(sorted(factors.items(), key=lambda _: generator.random()))


def _draw_blur(augmentation: Augmentation, generator: random.Random) -> float | None:
    if not _chance(augmentation.blur_probability, generator):
        return None
    return _uniform(*augmentation.blur_sigma, generator)


def apply_view(image: Image.Image, view: View, *, order: tuple[str, ...], size: int) -> Image.Image:
    """Apply a drawn view to an RGB image; the result is `size` x `size`."""
    for operation in order:
        image = _apply(operation, image, view, size)
    return image


def _apply(operation: str, image: Image.Image, view: View, size: int) -> Image.Image:
    if operation == "crop":
        top, left, height, width = view.crop
        # Cropped first and then resized, as torchvision does: pixels outside the crop never bleed in.
        cropped = image.crop((left, top, left + width, top + height))
        return cropped.resize((size, size), Image.Resampling.BILINEAR)
    if operation == "jitter" and view.jitter is not None:
        for part, factor in view.jitter:
            image = getattr(F, f"adjust_{part}")(image, factor)
        return image
    if operation == "grayscale" and view.grayscale:
        return image.convert("L").convert("RGB")
    if operation == "blur" and view.blur is not None:
        return image.filter(ImageFilter.GaussianBlur(radius=view.blur))
    if operation == "flip" and view.flip:
        return ImageOps.mirror(image)
    assert operation in ("jitter", "grayscale", "blur", "flip"), operation
    return image
