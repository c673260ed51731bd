"""Pixel operations on a batch of tensors with a value for each image, rounded or cut off wherever PIL does it.

Images are float32 (N, 3, H, W) with whole numbers from 0 to 255, on any device, and stay so; values are (N, 1, 1, 1).
Every operation that a view can do changes its images in place. Hue and blur are within one level of PIL; the others
give PIL's very pixels.
"""

import math

import torch
from torch.nn import functional as F

BLUR_PASSES = 3  # PIL's GaussianBlur is a box blur, repeated


def luma(images: torch.Tensor) -> torch.Tensor:
    """Rec. 601 luma of whole numbers from 0 to 255, (N, 3, H, W) -> (N, 1, H, W), rounded in 16-bit fixed point.

    Every sum is a whole number below 2**24, so float32 is exact.
    """
    red, green, blue = images.split(1, dim=1)
    sum_ = (red * 19595).add_(green, alpha=38470).add_(blue, alpha=7471)
    return sum_.add_(32768).mul_(2**-16).floor_()


def to_grayscale(images: torch.Tensor) -> None:
    """Replace all three channels by the luma."""
    images.copy_(luma(images).expand_as(images))


def flip(images: torch.Tensor) -> None:
    """Mirror left and right."""
    images.copy_(images.flip(-1))


def _blend(images: torch.Tensor, origin: torch.Tensor, factor: torch.Tensor) -> None:
    """Move away from `origin` (factor > 1) or towards it (factor < 1); fractions are cut off."""
    images.sub_(origin).mul_(factor).add_(origin).clamp_(0, 255).floor_()


def adjust_brightness(images: torch.Tensor, factor: torch.Tensor) -> None:
    """Blend with black."""
    images.mul_(factor).clamp_(max=255).floor_()


def adjust_contrast(images: torch.Tensor, factor: torch.Tensor) -> None:
    """Blend with the mean of the luma."""
    # In float64: a sum of luma over a large view is past float32's whole numbers.
    mean = luma(images).mean(dim=(1, 2, 3), keepdim=True, dtype=torch.float64)
    _blend(images, mean.add_(0.5).floor_().float(), factor)


def adjust_saturation(images: torch.Tensor, factor: torch.Tensor) -> None:
    """Blend with the luma."""
    _blend(images, luma(images), factor)


def adjust_hue(images: torch.Tensor, turn: torch.Tensor) -> None:
    """Turn the hue by whole levels from 0 to 255, by way of PIL's HSV mode: 256 levels of hue and of saturation."""
    value, hue, saturation = _hsv(images)
    hue.add_(turn).mul_(1 / 256).frac_().mul_(256 * 6 / 255)  # wrapped as a byte, then in sixths of the circle
    chroma = saturation.mul_(value).mul_(1 / 255)
    for channel, centre in enumerate((3, 2, 4)):
        # How far the channel is below the largest one, as a share of the chroma: a trapezium over the circle.
        share = (hue - centre).abs_().sub_(1).clamp_(0, 1)
        if channel == 0:  # red is the largest around 0, opposite its centre here
            share.neg_().add_(1)
        torch.sub(value, share.mul_(chroma), out=images[:, channel : channel + 1])
    images.add_(0.5).floor_()


def _hsv(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Value, hue and saturation, (N, 1, H, W) each, whole numbers from 0 to 255; gray has hue 0 and saturation 0."""
    red, green, blue = images.split(1, dim=1)
    value = torch.maximum(torch.maximum(red, green), blue)
    span = value - torch.minimum(torch.minimum(red, green), blue)
    below = (value - images).div_(span.clamp(min=1)).split(1, dim=1)  # how far each channel is below the largest
    # Hue in sixths of a circle: 0 + blue's - green's where red is the largest, 2 + red's - blue's where green is,
    # 4 + green's - red's where blue is. All in floats, 1 for true: booleans are several times slower on a CPU.
    red_leads = red.clone().ge_(value)
    green_leads = green.clone().ge_(value).mul_(1 - red_leads)
    blue_leads = (1 - red_leads).sub_(green_leads)
    plus = (red_leads * below[2]).addcmul_(green_leads, below[0]).addcmul_(blue_leads, below[1])
    minus = (red_leads * below[1]).addcmul_(green_leads, below[2]).addcmul_(blue_leads, below[0])
    # PIL goes from float to double and back like this. Fractions are cut off: a hair's breadth can be a whole level.
    sixths = green_leads.mul_(2).add_(blue_leads, alpha=4).double().add_(plus).sub_(minus).float()
    circle = sixths.double().div_(6).add_(1).frac_().float()
    hue = circle.double().mul_(255).floor_().float()
    saturation = span.div_(value.clamp(min=1)).double().mul_(255).floor_().float()
    return value, hue, saturation


def box_radius(sigma: float) -> float:
    """Radius of the box that, applied three times, stands for a Gaussian of that sigma, in pixels.

    Source: Gwosdek et al., Theoretical foundations of Gaussian convolution by extended box filtering (SSVM 2011),
    equations 7, 11 and 14; PIL's GaussianBlur uses it.
    """
    variance = sigma * sigma / BLUR_PASSES
    whole = math.floor((math.sqrt(12 * variance + 1) - 1) / 2)
    fraction = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    return whole + fraction


def box_blur(images: torch.Tensor, radius: torch.Tensor, *, reach: int) -> None:
    """Three box blurs along the rows, then three along the columns; beyond the border its pixels go on.

    `reach` is how far the widest box reaches to each side, its last pixel in part. Each blur is rounded, as PIL does.
    """
    weights = [(radius + 1 - distance).clamp(0, 1) / (2 * radius + 1) for distance in range(reach + 1)]
    for dim, border in ((3, (reach, reach, 0, 0)), (2, (0, 0, reach, reach))):
        length = images.shape[dim]
        for _ in range(BLUR_PASSES):
            padded = F.pad(images, border, mode="replicate")
            torch.mul(images, weights[0], out=images).add_(0.5)
            for distance in range(1, reach + 1):
                for side in (reach - distance, reach + distance):
                    images.addcmul_(padded.narrow(dim, side, length), weights[distance])
            images.floor_()
