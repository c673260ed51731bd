"""Every kind of image file comes out as upright 8-bit RGB; what cannot be decoded is one line with its name."""

import errno
import hashlib
import io
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from mocobench.runtime.errors import UserError
from mocobench.runtime.images import decode_rgb, list_image_folder, list_images, read_rgb

RED, DARK = (255, 0, 0), (40, 40, 40)


def encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def pixel(content: bytes) -> tuple[int, int, int]:
    image = decode_rgb(content, name="x")
    assert (image.mode, image.size) == ("RGB", (8, 8))
    value = image.getpixel((3, 3))
    assert isinstance(value, tuple)
    return value


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_grayscale_has_three_equal_channels(format: str) -> None:
    assert pixel(encoded(Image.new("L", (8, 8), 40), format)) == DARK
    assert pixel(encoded(Image.new("1", (8, 8), 1))) == (255, 255, 255)


def test_palette_gives_the_colours_it_stands_for() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, *RED])
    for format in ("PNG", "GIF"):
        assert pixel(encoded(image, format)) == RED


def test_transparency_is_dropped() -> None:
    assert pixel(encoded(Image.new("RGBA", (8, 8), (*RED, 0)))) == RED
    assert pixel(encoded(Image.new("LA", (8, 8), (40, 128)))) == DARK


def test_cmyk_is_converted() -> None:
    assert pixel(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100)) == RED


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_high_byte(format: str) -> None:
    """PIL's own conversion cuts off at 255: all but the darkest would be white."""
    image = Image.fromarray(np.full((8, 8), 40 * 256 + 255, dtype=np.uint16))
    assert pixel(encoded(image, format)) == DARK


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    """The stored picture of each orientation, made by the inverse of what EXIF says a viewer has to do."""
    upright = Image.fromarray(np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3))
    turn = Image.Transpose
    inverse = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_90,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_270,
    }
    stored = upright.transpose(inverse[orientation]) if orientation in inverse else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    read = decode_rgb(encoded(stored, exif=exif), name="x")
    assert np.array_equal(np.asarray(read), np.asarray(upright))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_images_are_turned_as_pil_turns_them(format: str) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (10, 20, 3), dtype=np.uint8))
    for orientation in range(10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        by_xmp = f'<rdf:Description tiff:Orientation="{orientation}"/>'.encode()
        # TIFF keeps its orientation elsewhere, and not all of these formats have a place for XMP.
        contents = [encoded(picture, format, exif=exif)]
        contents += [encoded(picture, format, xmp=by_xmp)] if format in ("JPEG", "WEBP") else []
        for content in contents:
            theirs = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
            assert np.array_equal(np.asarray(decode_rgb(content, name="x")), np.asarray(theirs))


def test_a_photograph_with_odd_exif_is_turned() -> None:
    """Two entries: orientation 6 and a resolution that is text where EXIF wants a fraction."""
    orientation, resolution = struct.pack("<HHII", 0x0112, 3, 1, 6), struct.pack("<HHI4s", 0x011A, 2, 4, b"300")
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + orientation + resolution + bytes(4)
    content = encoded(Image.new("RGB", (20, 10), RED), "JPEG", exif=exif)
    assert decode_rgb(content, name="x").size == (10, 20)


@pytest.mark.parametrize("error", [TypeError, AttributeError, IndexError, struct.error])
def test_whatever_pils_readers_raise_is_named(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(Image.new("RGB", (8, 8)))

    def load(image: ImageFile.ImageFile) -> None:
        raise error("odd")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(UserError, match=r"^x: expected an image that can be decoded, found odd; replace or remove it$"):
        decode_rgb(content, name="x")


@pytest.mark.parametrize(
    ("levels", "found"),
    [(np.full((8, 8), 0.5, np.float32), "floating-point"), (np.full((8, 8), -1, np.int32), "32-bit")],
)
def test_pixels_of_unknown_range_are_refused(levels: np.ndarray, found: str) -> None:
    with pytest.raises(UserError, match=rf"^x: expected an image that can be decoded, found {found} pixels; replace"):
        decode_rgb(encoded(Image.fromarray(levels), "TIFF"), name="x")


def test_what_is_no_whole_image_is_named(tmp_path: Path) -> None:
    whole = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)))
    for content in (b"", b"<html>not found</html>", whole[:-500]):
        path = tmp_path / "a.png"
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"^\S+/a\.png: expected an image that can be decoded, found [^\n]+$"):
            read_rgb(path)
    with pytest.raises(UserError, match=r"^\S+/b\.png: expected an image, found no such file$"):
        read_rgb(tmp_path / "b.png")


def test_a_name_that_is_not_utf8_is_listed_and_shown(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/cats/caf\xe9.png"))
    path.parent.mkdir()
    path.write_bytes(b"12345")
    folder = list_image_folder(tmp_path)
    assert (folder.paths, folder.name(0)) == ((path,), "cats/caf\\xe9.png")
    assert folder.list_sha256() == hashlib.sha256(b"cats/caf\xe9.png\t5\n").hexdigest()
    with pytest.raises(UserError, match=r"/cats/caf\\xe9\.png: expected an image that can be decoded"):
        folder.read(0)


def test_images_behind_links_are_listed_by_the_links_names(tmp_path: Path) -> None:
    """A subset of a data set is often a folder of links to its classes."""
    (tmp_path / "all" / "cat").mkdir(parents=True)
    (tmp_path / "all" / "cat" / "1.png").write_bytes(encoded(Image.new("RGB", (8, 8))))
    (tmp_path / "some" / "dog" / "deep").mkdir(parents=True)
    (tmp_path / "some" / "cat").symlink_to(tmp_path / "all" / "cat")
    (tmp_path / "some" / "dog" / "deep" / "2.PNG").symlink_to(tmp_path / "all" / "cat" / "1.png")
    (tmp_path / "some" / "dog" / ".2.png").touch()
    (tmp_path / "some" / "dog" / "notes.txt").touch()
    names = [path.relative_to(tmp_path / "some").as_posix() for path in list_images(tmp_path / "some")]
    assert names == ["cat/1.png", "dog/deep/2.PNG"]


def test_a_link_to_no_file_and_a_circle_of_links_are_named(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(UserError, match=r"gone\.png: expected an image, found a link to no file; mend or remove it"):
        list_images(tmp_path)
    (tmp_path / "gone.png").unlink()
    (tmp_path / "again").symlink_to(tmp_path)
    with pytest.raises(UserError, match=r"again: expected a folder of images, found a link to a folder that it is in"):
        list_images(tmp_path)


def test_a_folder_that_cannot_be_read_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cat").mkdir()
    scandir = os.scandir

    def closed(folder: Path) -> Iterator[os.DirEntry[str]]:
        if Path(folder).name == "cat":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))  # root, as in CI, may read any folder
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(UserError, match=r"cat: expected a folder that can be read, found Permission denied"):
        list_images(tmp_path)
