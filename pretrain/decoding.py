"""Image files to tensors of pixels: those of `mocobench.runtime.images`, a photograph's JPEG in half the time."""

import io

import simplejpeg
import torch
from PIL import ExifTags, Image
from torchvision.transforms.functional import pil_to_tensor

from mocobench.runtime.images import PIL_ERRORS, TURNS, decode_rgb


def decode_pixels(content: bytes, *, name: str) -> torch.Tensor:
    """Decode an image to 8-bit RGB, upright: uint8 (3, H, W), the channels last in memory; equal to `decode_rgb`.

    Raises:
        UserError: it is not a whole image; `name` is what the error calls it.
    """
    pixels = _decode_plain_jpeg(content)
    return pil_to_tensor(decode_rgb(content, name=name)) if pixels is None else pixels


def _decode_plain_jpeg(content: bytes) -> torch.Tensor | None:
    """The pixels of a JPEG that is in colour and not turned, without PIL's own copies of them; None for any other."""
    if not _is_plain_jpeg(content):
        return None
    try:
        return torch.from_numpy(simplejpeg.decode_jpeg(content)).permute(2, 0, 1)
    except ValueError:
        return None  # damaged: PIL decides what can be read of it


def _is_plain_jpeg(content: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(content)) as header:
            is_turned = header.getexif().get(ExifTags.Base.Orientation) in TURNS
            return header.format == "JPEG" and header.mode == "RGB" and not is_turned
    except PIL_ERRORS:
        return False  # `decode_rgb` meets the same and names the file
