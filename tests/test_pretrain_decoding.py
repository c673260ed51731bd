"""Every file's pixels are those that PIL gives, whichever way they are decoded, and so is what cannot be decoded."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

import pretrain.decoding
from mocobench.runtime.errors import UserError
from mocobench.runtime.images import decode_rgb, list_images
from pretrain.decoding import decode_pixels


def noise(width: int, height: int) -> Image.Image:
    generator = np.random.default_rng(width * height)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def assert_as_pil(content: bytes) -> None:
    assert torch.equal(decode_pixels(content, name="x"), pil_to_tensor(decode_rgb(content, name="x")))


@pytest.fixture
def without_pil(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(content: bytes, *, name: str) -> Image.Image:
        raise AssertionError(f"{name}: left to PIL")

    monkeypatch.setattr(pretrain.decoding, "decode_rgb", refuse)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_colour_jpeg_is_decoded_as_pil_does(without_pil: None, subsampling: int, progressive: bool) -> None:
    for width, height in ((1, 1), (7, 5), (33, 17), (64, 64), (101, 77)):
        for quality in (5, 50, 92, 100):
            image = noise(width, height)
            content = encoded(image, subsampling=subsampling, progressive=progressive, quality=quality)
            pixels = decode_pixels(content, name="x")
            assert torch.equal(pixels, pil_to_tensor(decode_rgb(content, name="x")))
            assert pixels[None].is_contiguous(memory_format=torch.channels_last)


def test_photographs_are_decoded_as_pil_does(shared_data: Path, without_pil: None) -> None:
    paths = list_images(shared_data / "imagenette-mini" / "val")
    in_colour = [path for path in paths if Image.open(path).mode == "RGB"]
    assert len(in_colour) > 100
    for path in in_colour:
        content = path.read_bytes()
        assert torch.equal(decode_pixels(content, name="x"), pil_to_tensor(decode_rgb(content, name="x")))


@pytest.mark.parametrize("orientation", range(10))
def test_a_turned_jpeg_is_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(noise(20, 10), exif=exif)
    assert_as_pil(content)
    assert decode_pixels(content, name="x").shape == ((3, 20, 10) if orientation in (5, 6, 7, 8) else (3, 10, 20))


def test_odd_exif_that_pil_stumbles_over_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(noise(20, 10))

    def getexif(image: Image.Image) -> Image.Exif:
        raise TypeError("bad operand")

    monkeypatch.setattr(Image.Image, "getexif", getexif)
    with pytest.raises(UserError, match=r"^x: expected an image that can be decoded, found bad operand; replace"):
        decode_pixels(content, name="x")


def test_other_kinds_are_left_to_pil() -> None:
    picture = noise(20, 10)
    for content in (
        *(encoded(picture.convert(mode)) for mode in ("L", "CMYK")),
        *(encoded(picture, format) for format in ("PNG", "BMP", "WEBP", "TIFF", "GIF")),
        encoded(picture.convert("RGBA"), "PNG"),
    ):
        assert_as_pil(content)


def outcome(decode: Any, content: bytes) -> Any:
    """What it gives, or what it says is wrong."""
    try:
        return decode(content, name="x")
    except UserError as error:
        return str(error)


def test_a_damaged_jpeg_is_read_or_refused_as_by_pil() -> None:
    whole = encoded(noise(40, 30))
    generator = np.random.default_rng(0)
    damaged = [b"", whole[:100], whole[: len(whole) // 2], whole[:-2], whole[: len(whole) // 2] + whole[-2:]]
    for _ in range(200):
        content = bytearray(whole)
        content[generator.integers(2, len(whole))] = generator.integers(256)
        damaged.append(bytes(content))
    refused = 0
    for content in damaged:
        pil, ours = outcome(decode_rgb, content), outcome(decode_pixels, content)
        refused += isinstance(pil, str)
        assert isinstance(ours, str) == isinstance(pil, str)
        assert ours == pil if isinstance(pil, str) else torch.equal(ours, pil_to_tensor(pil))
    assert 4 <= refused < len(damaged) - 100
