"""Views on tensors: applies drawn views to a batch on any device, as `pretrain.views` applies one to a PIL image.

Workers decode and crop (`crop_views`); the rest (`apply_views`, `normalise`) can run on the training device. Decoding
at half size, which JPEG allows for large images, is left out: photographs come out 2 to 6 levels different on average.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F

from pretrain import pixel_operations as operations
from pretrain.views import View

# One view (600 kB as float32 at 224 pixels) stays in a core's cache through all its operations; a batch would not.
VIEWS_AT_ONCE_ON_CPU = 1
VIEWS_AT_ONCE = 128  # on other devices; bounds the memory beside the training's to about half a gigabyte at 224 pixels
ADJUSTMENTS = {
    "brightness": operations.adjust_brightness,
    "contrast": operations.adjust_contrast,
    "saturation": operations.adjust_saturation,
    "hue": operations.adjust_hue,
}


def crop_views(image: torch.Tensor, views: Sequence[View], *, size: int) -> torch.Tensor:
    """The workers' share: each view's crop of one image, resized.

    Args:
        image: RGB, uint8 (3, H, W), fastest with its channels last in memory.
        views: the drawn views of it.
        size: the side of a view in pixels.

    Returns:
        uint8 (len(views), 3, size, size).

    Within two levels of PIL's in every pixel, equal in most.
    """
    crops = []
    for view in views:
        top, left, height, width = view.crop
        crop = image[None, :, top : top + height, left : left + width]
        whole = crop.contiguous(memory_format=torch.channels_last)  # resizing a part of an image takes longer
        crops.append(F.interpolate(whole, (size, size), mode="bilinear", antialias=True)[0])
    return torch.stack(crops)


def apply_views(images: torch.Tensor, views: Sequence[View], *, order: Sequence[str], size: int) -> torch.Tensor:
    """Apply `views[i]` to `images[i]`, on the device of `images`.

    Args:
        images: uint8, or float with whole numbers from 0 to 255, (N, 3, H, W): images on a common canvas when `order`
            holds `crop`, else the crops (N, 3, size, size) of `crop_views`.
        views: N drawn views.
        order: names of operations: `Augmentation.order`, or for crops what follows `crop` in it.
        size: the side of a view in pixels.

    Returns:
        uint8 (N, 3, size, size). A view depends on its own image and record, not on the rest of the batch.
    """
    assert len(images) == len(views), (len(images), len(views))
    result = torch.empty((len(views), 3, size, size), dtype=torch.uint8, device=images.device)
    at_once = VIEWS_AT_ONCE_ON_CPU if images.device.type == "cpu" else VIEWS_AT_ONCE
    for start in range(0, len(views), at_once):
        some = slice(start, start + at_once)
        changed = images[some].to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        for operation in order:
            changed = _apply(operation, changed, views[some], size)
        result[some] = changed.to(torch.int16)  # on a CPU three times faster than from float to bytes at once
    return result


def normalise(
    images: torch.Tensor, *, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> torch.Tensor:
    """uint8 (N, 3, H, W) -> float32 (x / 255 - mean) / std; mean and std belong to values in [0, 1]."""
    scale = torch.tensor([1 / (255 * s) for s in std], device=images.device)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=images.device)
    return images.float().mul_(scale.view(3, 1, 1)).add_(shift.view(3, 1, 1))


def _apply(operation: str, images: torch.Tensor, views: Sequence[View], size: int) -> torch.Tensor:
    """The images after the operation: changed in place, or new ones after a crop."""
    if operation == "crop":
        boxes = torch.tensor([view.crop for view in views], dtype=torch.float32)
        return operations.crop_and_resize(images, boxes.to(images.device, non_blocking=True), size=size)
    if operation == "jitter":
        _jitter(images, views)
    elif operation == "grayscale":
        chosen = {i: 1.0 for i, view in enumerate(views) if view.grayscale}
        _change(images, chosen, lambda part, _: operations.to_grayscale(part))
    elif operation == "blur":
        radii = {i: operations.box_radius(view.blur) for i, view in enumerate(views) if view.blur is not None}
        reach = math.floor(max(radii.values(), default=0.0)) + 1
        _change(images, radii, lambda part, radius: operations.box_blur(part, radius, reach=reach))
    else:
        assert operation == "flip", operation
        chosen = {i: 1.0 for i, view in enumerate(views) if view.flip}
        _change(images, chosen, lambda part, _: operations.flip(part))
    return images


def _jitter(images: torch.Tensor, views: Sequence[View]) -> None:
    jitters = [view.jitter or () for view in views]
    for step in range(max(map(len, jitters), default=0)):
        # Each view has its own order: those that do the same thing now do it together.
        for name, adjust in ADJUSTMENTS.items():
            factors = {
                i: jitter[step][1] for i, jitter in enumerate(jitters) if step < len(jitter) and jitter[step][0] == name
            }
            if name == "hue":  # as a byte, which wraps; cut off here, where the factor is still in float64
                factors = {i: math.trunc(255 * factor) % 256 for i, factor in factors.items()}
            _change(images, factors, adjust)


def _change(
    images: torch.Tensor, values: dict[int, float], operation: Callable[[torch.Tensor, torch.Tensor], None]
) -> None:
    """Let `operation` change `images[i]` in place for every i in `values`; it gets their values as (n, 1, 1, 1)."""
    if not values:
        return
    of_each = torch.tensor(list(values.values()), dtype=torch.float32).view(-1, 1, 1, 1)
    of_each = of_each.to(images.device, non_blocking=True)  # a copy that blocks would wait for the device each time
    if len(values) == len(images):
        operation(images, of_each)
        return
    chosen = torch.tensor(list(values)).to(images.device, non_blocking=True)
    part = images[chosen]
    operation(part, of_each)
    images[chosen] = part
