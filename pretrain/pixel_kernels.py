"""Jitter and blur for a GPU: what `pretrain.pixel_operations` does, in one pass over memory where that takes ten.

The same arithmetic in the same order, each product and sum rounded by itself: the same pixels, but for a blur whose sum
is next to a whole level, which can be one level apart. Written in Triton, which PyTorch brings for CUDA on Linux.
"""

import torch
import triton
from triton import language as tl

from pretrain.pixel_operations import BLUR_PASSES

BLOCK = 1024  # values of a channel, or of all, that one program changes


def jitter(images: torch.Tensor, operations: torch.Tensor, factors: torch.Tensor) -> None:
    """Change each image by its own operations, one after the other, in place.

    Args:
        images: float32 (N, 3, H, W), contiguous, whole numbers from 0 to 255.
        operations: int32 (N, steps): 0 brightness, 1 contrast, 2 saturation, 3 hue, -1 none.
        factors: float32 (N, steps); of hue, the turn in levels of a byte.
    """
    assert images.is_contiguous(), images.stride()
    num_images, num_steps = operations.shape
    num_pixels = images[0, 0].numel()
    grid = (num_images, triton.cdiv(num_pixels, BLOCK))
    for step in range(num_steps):
        sums = torch.zeros(num_images, dtype=torch.int64, device=images.device)
        places = operations[:, step].contiguous(), factors[:, step].contiguous()
        _sum_luma[grid](images, places[0], sums, num_pixels, BLOCK=BLOCK, enable_fp_fusion=False)
        _adjust[grid](images, *places, sums, num_pixels, BLOCK=BLOCK, enable_fp_fusion=False)


def box_blur(images: torch.Tensor, radii: torch.Tensor, *, reach: int) -> None:
    """Blur each image in place, three times along the rows and three times along the columns.

    Args:
        images: float32 (N, 3, H, W), contiguous, whole numbers from 0 to 255.
        radii: float32 (N,), of the box in pixels, NaN for an image that is left as it is.
        reach: how far the widest box reaches to each side, its last pixel in part.
    """
    assert images.is_contiguous(), images.stride()
    num_images, channels, height, width = images.shape
    size = channels * height * width
    grid = (num_images, triton.cdiv(size, BLOCK))
    source, target = images, torch.empty_like(images)
    for stride, length in ((1, width), (width, height)):
        for _ in range(BLUR_PASSES):
            _blur_along[grid](source, target, radii, size, stride, length, reach, BLOCK=BLOCK, enable_fp_fusion=False)
            source, target = target, source
    assert source is images, "an even number of passes ends where it began"


@triton.jit
def _luma(red, green, blue):  # type: ignore[no-untyped-def]
    return tl.floor((red * 19595.0 + green * 38470.0 + blue * 7471.0 + 32768.0) * 0.0000152587890625)


@triton.jit
def _blend(channel, origin, factor):  # type: ignore[no-untyped-def]
    return tl.floor(tl.minimum(tl.maximum((channel - origin) * factor + origin, 0.0), 255.0))


@triton.jit
def _trapezium(hue, centre: tl.constexpr):  # type: ignore[no-untyped-def]
    return tl.minimum(tl.maximum(tl.abs(hue - centre) - 1.0, 0.0), 1.0)


@triton.jit
def _sum_luma(images, operations, sums, num_pixels, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def] # noqa: N803
    """Add this block's luma to its image's sum, where the contrast is to be changed."""
    image = tl.program_id(0).to(tl.int64)
    if tl.load(operations + image) == 1:
        places = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        inside = places < num_pixels
        pixels = images + image * 3 * num_pixels + places
        red = tl.load(pixels, mask=inside, other=0.0)
        green = tl.load(pixels + num_pixels, mask=inside, other=0.0)
        blue = tl.load(pixels + 2 * num_pixels, mask=inside, other=0.0)
        tl.atomic_add(sums + image, tl.sum(_luma(red, green, blue).to(tl.int64)))


@triton.jit
def _adjust(images, operations, factors, sums, num_pixels, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def] # noqa: N803
    """Change one block of one image."""
    image = tl.program_id(0).to(tl.int64)
    operation = tl.load(operations + image)
    if operation >= 0:
        places = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        inside = places < num_pixels
        pixels = images + image * 3 * num_pixels + places
        factor = tl.load(factors + image)
        red = tl.load(pixels, mask=inside, other=0.0)
        green = tl.load(pixels + num_pixels, mask=inside, other=0.0)
        blue = tl.load(pixels + 2 * num_pixels, mask=inside, other=0.0)
        if operation == 0:
            red = tl.floor(tl.minimum(red * factor, 255.0))
            green = tl.floor(tl.minimum(green * factor, 255.0))
            blue = tl.floor(tl.minimum(blue * factor, 255.0))
        elif operation == 1:
            total = tl.load(sums + image).to(tl.float64)
            mean = tl.floor(total / num_pixels + 0.5).to(tl.float32)
            red = _blend(red, mean, factor)
            green = _blend(green, mean, factor)
            blue = _blend(blue, mean, factor)
        elif operation == 2:
            gray = _luma(red, green, blue)
            red = _blend(red, gray, factor)
            green = _blend(green, gray, factor)
            blue = _blend(blue, gray, factor)
        else:
            # To hue and saturation, whole levels, and back: see pixel_operations._hsv and adjust_hue.
            value = tl.maximum(tl.maximum(red, green), blue)
            span = value - tl.minimum(tl.minimum(red, green), blue)
            divisor = tl.maximum(span, 1.0)
            below_red = tl.div_rn(value - red, divisor)
            below_green = tl.div_rn(value - green, divisor)
            below_blue = tl.div_rn(value - blue, divisor)
            red_leads = red >= value
            green_leads = (green >= value) & (red < value)
            base = tl.where(red_leads, 0.0, tl.where(green_leads, 2.0, 4.0))
            plus = tl.where(red_leads, below_blue, tl.where(green_leads, below_red, below_green))
            minus = tl.where(red_leads, below_green, tl.where(green_leads, below_blue, below_red))
            sixths = (base.to(tl.float64) + plus - minus).to(tl.float32)
            circle = sixths.to(tl.float64) / 6.0 + 1.0
            circle = (circle - tl.floor(circle)).to(tl.float32)
            hue = tl.floor(circle.to(tl.float64) * 255.0).to(tl.float32)
            share = tl.div_rn(span, tl.maximum(value, 1.0))
            saturation = tl.floor(share.to(tl.float64) * 255.0).to(tl.float32)
            turned = (hue + factor) * 0.00390625
            turned = (turned - tl.floor(turned)) * 6.023529411764705882  # as a byte, in sixths of the circle
            chroma = saturation * value * 0.003921568627450980
            red = tl.floor(value - (1.0 - _trapezium(turned, 3.0)) * chroma + 0.5)
            green = tl.floor(value - _trapezium(turned, 2.0) * chroma + 0.5)
            blue = tl.floor(value - _trapezium(turned, 4.0) * chroma + 0.5)
        tl.store(pixels, red, mask=inside)
        tl.store(pixels + num_pixels, green, mask=inside)
        tl.store(pixels + 2 * num_pixels, blue, mask=inside)


@triton.jit
def _blur_along(source, target, radii, size, stride, length, reach, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def] # noqa: N803
    """One box blur of one block of one image; `stride` is from a value to the next of the `length` along the axis."""
    image = tl.program_id(0).to(tl.int64)
    radius = tl.load(radii + image)
    if radius == radius:  # not NaN
        places = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        inside = places < size
        values = source + image * size + places
        along = (places // stride) % length
        full = 2.0 * radius + 1.0
        own = tl.load(values, mask=inside, other=0.0)
        total = own * tl.div_rn(tl.minimum(tl.maximum(radius + 1.0, 0.0), 1.0), full) + 0.5
        for distance in range(1, reach + 1):
            weight = tl.div_rn(tl.minimum(tl.maximum(radius + 1.0 - distance, 0.0), 1.0), full)
            # Beyond the border its values go on.
            before = (tl.maximum(along - distance, 0) - along) * stride
            after = (tl.minimum(along + distance, length - 1) - along) * stride
            total += tl.load(values + before, mask=inside, other=0.0) * weight
            total += tl.load(values + after, mask=inside, other=0.0) * weight
        tl.store(target + image * size + places, tl.floor(total), mask=inside)
