"""Image files as RGB, and labelled image folders; a file that cannot be read is named."""

import hashlib
import io
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from mocobench.runtime.errors import UserError
from mocobench.runtime.files import printable

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
# PIL's readers raise what they run into in a damaged or odd file.
PIL_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, EOFError),
    *(AssertionError, NotImplementedError, struct.error, zlib.error, Image.DecompressionBombError),
)
# What a viewer does with a picture of each EXIF orientation.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_rgb(path: Path) -> Image.Image:
    """Decode an image file to 8-bit RGB, upright: see `read_content` and `decode_rgb`."""
    return decode_rgb(read_content(path), name=str(path))


def read_content(path: Path, *, offset: int = 0, size: int = -1) -> bytes:
    """The bytes of a file, or `size` of them from `offset`.

    Raises:
        UserError: the file is missing or cannot be read.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size)
    except FileNotFoundError:
        raise UserError(f"{printable(path)}: expected an image, found no such file") from None
    except OSError as error:
        raise UserError(f"{printable(path)}: expected a file that can be read, found {_one_line(error)}") from error


def decode_rgb(content: bytes, *, name: str) -> Image.Image:
    """Decode an image to 8-bit RGB, upright; `name` is what an error calls it.

    Grayscale, palette, RGBA, CMYK and 16-bit images are converted; an EXIF orientation is applied.

    Raises:
        UserError: it is not a whole image.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            return _to_rgb(_upright(image))
    except PIL_ERRORS as error:
        raise UserError(
            f"{printable(name)}: expected an image that can be decoded, found {_one_line(error)}; replace or remove it"
        ) from error


def _upright(image: Image.Image) -> Image.Image:
    # PIL's own exif_transpose also writes the EXIF block anew, and many a valid photograph has one that it cannot.
    turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels")
    if image.mode == "RGB":
        return image
    if not image.mode.startswith("I"):
        return image.convert("RGB")
    # 16-bit gray; PIL would cut it off at 255, which leaves it white. The high byte is what PIL keeps of 16-bit colour.
    levels = np.asarray(image)
    if levels.min() < 0 or levels.max() >= 2**16:
        raise ValueError("32-bit pixels")
    return Image.fromarray((levels >> 8).astype(np.uint8)).convert("RGB")


def _one_line(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "no known image format"  # PIL's own words end in an address in memory
    return " ".join(str(error).split()) or type(error).__name__


def list_images(root: Path) -> tuple[Path, ...]:
    """All image files below `root`, sorted by path; links are followed, hidden files are left out.

    Raises:
        UserError: there is none, a folder cannot be read, or a link leads nowhere or in a circle.
    """
    images = tuple(sorted(_images_below(root, frozenset())))
    if not images:
        raise UserError(f"{root}: expected images ({' '.join(IMAGE_SUFFIXES)}), found none; add some or remove it")
    return images


def _images_below(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    """What `list_images` lists, in no order. `above` are the folders that this one is in, by device and inode."""
    try:
        info = folder.stat()
        entries = list(os.scandir(folder))
    except OSError as error:
        raise UserError(f"{printable(folder)}: expected a folder that can be read, found {error.strerror}") from error
    here = (info.st_dev, info.st_ino)
    if here in above:
        found = "a link to a folder that it is in"
        raise UserError(f"{printable(folder)}: expected a folder of images, found {found}; remove it")
    for entry in entries:
        path = folder / entry.name
        if entry.is_dir():
            yield from _images_below(path, above | {here})
        elif path.suffix.lower() in IMAGE_SUFFIXES and not entry.name.startswith("."):
            if not entry.is_file():
                raise UserError(f"{printable(path)}: expected an image, found a link to no file; mend or remove it")
            yield path


def list_sha256(root: Path, paths: Iterable[Path]) -> str:
    """SHA-256 over relative paths and byte sizes: the identity of a list of images. Names need not be UTF-8."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(os.fsencode(f"{path.relative_to(root).as_posix()}\t{path.stat().st_size}\n"))
    return digest.hexdigest()


@dataclass(frozen=True)
class ImageFolder:
    """The images below one folder with one sub-folder per class, in sorted order.

    `labels[i]` indexes `classes` and belongs to `paths[i]`.
    """

    root: Path
    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> Image.Image:
        """An image as 8-bit RGB; see `read_rgb`."""
        return read_rgb(self.paths[index])

    def name(self, index: int) -> str:
        """An image's path below the folder."""
        return printable(self.paths[index].relative_to(self.root).as_posix())

    def list_sha256(self) -> str:
        """The identity of this list of images."""
        return list_sha256(self.root, self.paths)

    def select(self, positions: Sequence[int]) -> "ImageFolder":
        """The images at these positions alone; the classes stay."""
        paths = tuple(self.paths[position] for position in positions)
        return replace(self, paths=paths, labels=tuple(self.labels[position] for position in positions))


def list_image_folder(root: Path) -> ImageFolder:
    """List `root/<class>/**/<image>` with classes and files sorted by name.

    Raises:
        UserError: the folder is missing, has no class folders, or a class folder holds no image.
    """
    if not root.is_dir():
        found_file = "a file" if root.exists() else "no such folder"
        raise UserError(f"{root}: expected a folder with one sub-folder of images per class, found {found_file}")
    classes = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise UserError(f"{root}: expected one sub-folder of images per class, found no sub-folders")
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = list_images(root / name)
        paths += found
        labels += [label] * len(found)
    return ImageFolder(root, tuple(paths), tuple(labels), tuple(map(printable, classes)))
