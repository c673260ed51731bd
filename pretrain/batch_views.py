"""Views on tensors: applies drawn views to a batch on any device, as `pretrain.views` applies one to a PIL image.

Workers decode and crop (`crop_views`); the rest (`apply_views`) can run on the training device. Decoding at half size,
which JPEG allows for large images, is left out: photographs come out 2 to 6 levels different on average.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from types import ModuleType

import numpy as np
import torch
from torch.nn import functional as F

from mocobench.runtime.progress import say
from pretrain import pixel_operations as operations
from pretrain.views import View

# One view (600 kB as float32 at 224 pixels) stays in a core's cache through all its operations; a batch would not.
VIEWS_AT_ONCE_ON_CPU = 1
# On other devices: 128 views at 224 pixels, and half a gigabyte beside the training's memory; of small ones many.
PIXELS_AT_ONCE = 128 * 224 * 224
ADJUSTMENTS = {
    "brightness": operations.adjust_brightness,
    "contrast": operations.adjust_contrast,
    "saturation": operations.adjust_saturation,
    "hue": operations.adjust_hue,
}
# No reason to do without kernels: nothing else would work either. PyTorch before 2.8 has no type for the second.
DEVICE_FAULTS = (torch.OutOfMemoryError, getattr(torch, "AcceleratorError", torch.OutOfMemoryError))
PLACES = {name: place for place, name in enumerate(ADJUSTMENTS)} | {"none": -1}
NO_JITTER = (("none", 0.0),) * len(ADJUSTMENTS)


@dataclass(frozen=True)
class ViewTable:
    """What N drawn views do to their crops, in columns: a batch is taken apart without a loop over its views.

    `jitter` is int32 (N, 4), places in `ADJUSTMENTS` in the order of application, -1 for none, and `factors` float32
    (N, 4), what belongs to them; to hue, its turn in levels of a byte. `grayscale` and `flip` are bool (N,); `radii`,
    of the blur's box in pixels, float32 (N,), NaN for none.
    """

    jitter: np.ndarray
    factors: np.ndarray
    grayscale: np.ndarray
    radii: np.ndarray
    flip: np.ndarray

    def __len__(self) -> int:
        return len(self.flip)

    def __getitem__(self, some: slice) -> "ViewTable":
        return ViewTable(**{name: column[some] for name, column in vars(self).items()})

    @staticmethod
    def of(views: Sequence[View]) -> "ViewTable":
        """The table of these views."""
        jitters = [[*(view.jitter or ()), *NO_JITTER][: len(NO_JITTER)] for view in views]
        radii = [math.nan if view.blur is None else operations.box_radius(view.blur) for view in views]
        return ViewTable(
            jitter=np.array([[PLACES[name] for name, _ in jitter] for jitter in jitters], np.int32),
            factors=np.array([[_in_levels(*part) for part in jitter] for jitter in jitters], np.float32),
            grayscale=np.array([view.grayscale for view in views]),
            radii=np.array(radii, np.float32),
            flip=np.array([view.flip for view in views]),
        )

    @staticmethod
    def joined(tables: Sequence["ViewTable"]) -> "ViewTable":
        """The rows of all tables, one table after the other."""
        return ViewTable(**{name: np.concatenate([vars(table)[name] for table in tables]) for name in vars(tables[0])})


def _in_levels(operation: str, factor: float) -> float:
    """A hue factor as a byte, which wraps; cut off here, where the factor is still in float64."""
    return math.trunc(255 * factor) % 256 if operation == "hue" else factor


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


def apply_views(images: torch.Tensor, views: ViewTable, *, order: Sequence[str], size: int) -> torch.Tensor:
    """Apply what follows the crop in view i of the table to `images[i]`, on the device of `images`.

    Args:
        images: the crops of `crop_views`, uint8, or float with whole numbers from 0 to 255, (N, 3, size, size).
        views: N drawn views.
        order: names of operations: what follows `crop` in `Augmentation.order`.
        size: the side of a view in pixels.

    Returns:
        uint8 (N, 3, size, size). A view depends on its own image and row, not on the rest of the batch.
    """
    assert len(images) == len(views), (len(images), len(views))
    result = torch.empty((len(views), 3, size, size), dtype=torch.uint8, device=images.device)
    on_cpu = images.device.type == "cpu"
    at_once = VIEWS_AT_ONCE_ON_CPU if on_cpu else max(1, PIXELS_AT_ONCE // (size * size))
    for start in range(0, len(views), at_once):
        some = slice(start, start + at_once)
        changed = images[some].to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        for operation in order:
            _apply(operation, changed, views[some])
        result[some] = changed.to(torch.int16) if on_cpu else changed  # three times faster there than at once to bytes
    return result


def _apply(operation: str, images: torch.Tensor, views: ViewTable) -> None:
    if operation == "jitter":
        _jitter(images, views)
    elif operation == "grayscale":
        _change(images, views.grayscale, operations.to_grayscale)
    elif operation == "blur":
        _blur(images, views)
    else:
        assert operation == "flip", operation
        _change(images, views.flip, operations.flip)


def _jitter(images: torch.Tensor, views: ViewTable) -> None:
    if kernels := find_kernels(images.device.type):
        kernels.jitter(images, _to_device(views.jitter, images.device), _to_device(views.factors, images.device))
        return
    for jitter, factors in zip(views.jitter.T, views.factors.T, strict=True):
        # Each view has its own order: those that do the same thing now do it together.
        for name, adjust in ADJUSTMENTS.items():
            _change(images, jitter == PLACES[name], adjust, factors)


def _blur(images: torch.Tensor, views: ViewTable) -> None:
    is_blurred = ~np.isnan(views.radii)
    if not is_blurred.any():
        return
    reach = math.floor(views.radii[is_blurred].max()) + 1
    if kernels := find_kernels(images.device.type):
        kernels.box_blur(images, _to_device(views.radii, images.device), reach=reach)
    else:
        _change(images, is_blurred, partial(operations.box_blur, reach=reach), views.radii)


@cache
def find_kernels(device: str) -> ModuleType | None:
    """`pretrain.pixel_kernels` for a type of device; None for a CPU, and where they cannot be made, which is said."""
    if device == "cpu":
        return None
    try:
        from pretrain import pixel_kernels

        factors = torch.zeros(1, 1, device=device)
        pixel_kernels.jitter(torch.zeros(1, 3, 4, 4, device=device), factors.int(), factors)
    except DEVICE_FAULTS:
        raise
    except Exception as error:  # ImportError, RuntimeError, CalledProcessError: no Triton, C compiler or headers
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        say(f"views are made without kernels, which takes longer: Triton cannot make them here ({reason})")
        return None
    return pixel_kernels


def _change(
    images: torch.Tensor, chosen: np.ndarray, operation: Callable[..., None], values: np.ndarray | None = None
) -> None:
    """Let `operation` change the images that are `chosen` in place; it gets their values, if any, as (n, 1, 1, 1)."""
    places = chosen.nonzero()[0]
    if not len(places):
        return
    of_each = [] if values is None else [_to_device(values[places], images.device).view(-1, 1, 1, 1)]
    if len(places) == len(images):
        operation(images, *of_each)
        return
    where = _to_device(places, images.device)
    part = images[where]
    operation(part, *of_each)
    images[where] = part


def _to_device(values: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(values).to(device, non_blocking=True)  # a copy that blocks would wait for the device
