"""What the VOC and the COCO reader share: bad annotations, image sizes and the identity of a list of images."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import ExifTags, Image

from benchmarks.detection.records import DetectionSet
from benchmarks.result import SplitIdentity
from mocobench.runtime.errors import UserError
from mocobench.runtime.images import PIL_ERRORS

ON_BAD_ANNOTATION = ("stop", "skip")
QUARTER_TURNS = (5, 6, 7, 8)  # EXIF orientations that swap width and height


@dataclass
class BadAnnotations:
    """What to do with what cannot be trained or tested on: stop, or leave it out and list it."""

    action: str
    skipped: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        assert self.action in ON_BAD_ANNOTATION, self.action

    def report(self, file: Path, place: str, fault: str, *, remedy: str = "mend it, or leave such objects out") -> None:
        """Note a faulty object. The list of what was left out names files without their folders.

        Raises:
            UserError: `action` is `stop`.
        """
        if self.action == "stop":
            raise UserError(f"{file} {place}: {fault}; {remedy}: --on-bad-annotation skip")
        self.skipped.append(f"{file.name} {place}: {fault}")


def read_upright_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file once its EXIF orientation is applied, read without decoding it.

    So a file that ends early passes, but for a WebP. An orientation that a PNG has after its pixels is not seen.

    Raises:
        UserError: the file is missing or is not an image.
    """
    try:
        with Image.open(path) as image:
            # Not image.getexif(): a PNG's own first decodes the pixels, for an EXIF block that may come after them.
            orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
            # As stored: PIL's size of a TIFF is the upright one already, from version 11 on.
            tags = getattr(image, "tag_v2", None)
            size = (tags[ExifTags.Base.ImageWidth], tags[ExifTags.Base.ImageLength]) if tags else image.size
    except FileNotFoundError:
        raise UserError(f"{path}: expected an image, found no such file") from None
    except PIL_ERRORS as error:
        found = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: expected an image, found {found}; replace it") from error
    return size[::-1] if orientation in QUARTER_TURNS else size


def check_size(image: Path, *, annotated: tuple[int, int], annotation: Path, place: str = "") -> None:
    """Check that boxes were drawn on the image as it is read: upright.

    Raises:
        UserError: the annotation states another width or height.
    """
    found = read_upright_size(image)
    if found != annotated:
        raise UserError(
            f"{annotation}{place}: expected the size of its image {image.name}, {found[0]}x{found[1]} when upright, "
            f"found {annotated[0]}x{annotated[1]}; mend the annotation or restore the image"
        )


def split_identity(detection_set: DetectionSet, annotation_digests: Iterable[bytes]) -> SplitIdentity:
    """How many images and objects a split has, and a SHA-256 over its image ids and its annotation files' SHA-256s."""
    digest = hashlib.sha256()
    for image in detection_set.images:
        digest.update(f"{image.image_id}\n".encode())
    for annotation_digest in annotation_digests:
        digest.update(annotation_digest)
    objects = sum(len(image.boxes) for image in detection_set.images)
    return SplitIdentity(images=len(detection_set.images), objects=objects, list_sha256=digest.hexdigest())
