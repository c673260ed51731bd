"""A small labelled picture world for the demo: textured shapes on cluttered backgrounds, in the real layouts.

A class is a shape with a texture (`striped-disc`); tones, places, sizes, angles and clutter are random and tell
nothing about the class. Every object has an exact outline, from which its box and its
mask follow.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from mocobench.runtime.files import write_text
from mocobench.runtime.progress import progress
from mocobench.runtime.seeds import derive_seed

SHAPES = ("disc", "star")
TEXTURES = ("striped", "dotted", "checked")
CLASSES = tuple(f"{texture}-{shape}" for texture in TEXTURES for shape in SHAPES)


@dataclass(frozen=True)
class WorldSize:
    """How many pictures to draw, how large they are in pixels, and the objects' radii as shares of the shorter side."""

    train_per_class: int = 120
    val_per_class: int = 30
    picture: int = 96
    picture_radius: tuple[float, float] = (0.24, 0.42)
    detection_train: int = 60
    detection_test: int = 30
    scene: tuple[int, int] = (160, 128)
    scene_radius: tuple[float, float] = (0.16, 0.34)


@dataclass(frozen=True)
class DrawnObject:
    """A drawn object: its class and its outline, (V, 2) x, y in pixels."""

    label: int
    outline: np.ndarray

    def box(self) -> tuple[int, int, int, int]:
        """Whole pixels (x1, y1, x2, y2) around the outline, 0-based, x2 and y2 past the last pixel."""
        x1, y1 = np.floor(self.outline.min(axis=0)).astype(int)
        x2, y2 = np.ceil(self.outline.max(axis=0)).astype(int)
        return int(x1), int(y1), int(x2), int(y2)


def draw_world(out: Path, *, seed: int, size: WorldSize | None = None) -> None:
    """Write `out/imagenet` (train/, val/), `out/VOCdevkit/VOC2007` and `out/coco`.

    The same seed and size give the same files.
    """
    size = size or WorldSize()
    for split, count in (("train", size.train_per_class), ("val", size.val_per_class)):
        _draw_image_folder(out / "imagenet" / split, split, count=count, seed=seed, size=size)
    splits = (("train", size.detection_train), ("test", size.detection_test))
    scenes = {split: _draw_scenes(split, count, seed=seed, size=size) for split, count in splits}
    _write_voc(out / "VOCdevkit" / "VOC2007", scenes)
    _write_coco(out / "coco", scenes)


# Drawing


def draw_picture(
    generator: np.random.Generator, *, width: int, height: int, labels: tuple[int, ...], radius: tuple[float, float]
) -> tuple[Image.Image, tuple[DrawnObject, ...]]:
    """A picture with one object per label on a cluttered background; objects do not touch one another.

    `radius` is the range of the objects' radii as shares of the shorter side. An object for which no free place is
    found is left out.
    """
    image = _background(generator, width, height)
    objects: list[DrawnObject] = []
    for label in labels:
        outline = _free_outline(generator, label, objects, width=width, height=height, radius=radius)
        if outline is None:
            continue
        objects.append(DrawnObject(label, outline))
        mask = Image.new("L", (width, height))
        ImageDraw.Draw(mask).polygon([tuple(point) for point in outline], fill=255)
        image.paste(_texture(generator, CLASSES[label].split("-")[0], width, height), mask=mask)
    return image, tuple(objects)


def _colour(generator: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = (generator.integers(40, 216) + generator.integers(-20, 21, size=3)).tolist()
    return red, green, blue


def _background(generator: np.random.Generator, width: int, height: int) -> Image.Image:
    """Soft, muted patches with loose strokes and small blots.

    Nearly gray, because vivid colours tell pictures apart by themselves, and contrastive learning looks no further.
    """
    patches = generator.integers(90, 166, size=(4, 5, 1)) + generator.integers(-20, 21, size=(4, 5, 3))
    image = Image.fromarray(patches.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = generator.uniform(0, width), generator.uniform(0, height)
        dx, dy = generator.normal(0, 0.12 * width, size=2)
        pen.line((x, y, x + dx, y + dy), fill=_colour(generator), width=int(generator.integers(1, 3)))
        x, y, r = generator.uniform(0, width), generator.uniform(0, height), generator.uniform(1, 4)
        pen.ellipse((x - r, y - r, x + r, y + r), fill=_colour(generator))
    return image.filter(ImageFilter.GaussianBlur(0.6))


def _free_outline(
    generator: np.random.Generator,
    label: int,
    others: list[DrawnObject],
    *,
    width: int,
    height: int,
    radius: tuple[float, float],
) -> np.ndarray | None:
    for _ in range(30):
        r = generator.uniform(*radius) * min(width, height)
        centre = np.array([generator.uniform(r, width - r), generator.uniform(r, height - r)])
        outline = centre + r * _unit_outline(CLASSES[label].split("-")[1], generator.uniform(0, 2 * math.pi))
        box = DrawnObject(label, outline).box()
        if all(_apart(box, other.box()) for other in others):
            return outline
    return None


def _apart(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def _unit_outline(shape: str, angle: float) -> np.ndarray:
    """Vertices (V, 2) of a shape inside the unit circle, turned by `angle`."""
    corners = {"disc": 32, "star": 10}[shape]
    turns = angle + 2 * math.pi * np.arange(corners) / corners
    radii = np.where(np.arange(corners) % 2, 0.45, 1.0) if shape == "star" else np.ones(corners)
    return np.stack([radii * np.cos(turns), radii * np.sin(turns)], axis=1)


def _texture(generator: np.random.Generator, texture: str, width: int, height: int) -> Image.Image:
    """A full picture of one texture in two clearly different random tones."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    angle, period = generator.uniform(0, math.pi), generator.uniform(5, 8)
    u = (x * math.cos(angle) + y * math.sin(angle)) / period
    v = (y * math.cos(angle) - x * math.sin(angle)) / period
    patterns = {
        "striped": u % 1 < 0.5,
        "dotted": (u % 1 - 0.5) ** 2 + (v % 1 - 0.5) ** 2 < 0.1,
        "checked": (u % 1 < 0.5) != (v % 1 < 0.5),
    }
    paper, ink = generator.permutation([generator.integers(0, 90), generator.integers(166, 256)])
    tint = generator.integers(-20, 21, size=3)
    return Image.fromarray((np.where(patterns[texture][..., None], ink, paper) + tint).clip(0, 255).astype(np.uint8))


# Layouts

Scene = tuple[str, Image.Image, tuple[DrawnObject, ...]]


def _draw_image_folder(root: Path, split: str, *, count: int, seed: int, size: WorldSize) -> None:
    bar = progress(total=count * len(CLASSES), label=f"drawing imagenet/{split}", unit="image")
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            generator = np.random.default_rng(derive_seed(seed, "picture", split, label, i))
            image, _ = draw_picture(
                generator, width=size.picture, height=size.picture, labels=(label,), radius=size.picture_radius
            )
            image.save(root / name / f"{name}_{i:04d}.JPEG", quality=95)
            bar.update()
    bar.close()


def _draw_scenes(split: str, count: int, *, seed: int, size: WorldSize) -> list[Scene]:
    scenes = []
    width, height = size.scene
    for i in range(count):
        generator = np.random.default_rng(derive_seed(seed, "scene", split, i))
        labels = tuple(generator.integers(0, len(CLASSES), size=int(generator.integers(1, 4))).tolist())
        image, objects = draw_picture(generator, width=width, height=height, labels=labels, radius=size.scene_radius)
        scenes.append((f"{split}_{i:04d}", image, objects))
    return scenes


def _write_voc(root: Path, scenes: dict[str, list[Scene]]) -> None:
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for split, name in (("train", "trainval"), ("test", "test")):
        write_text(root / "ImageSets" / "Main" / f"{name}.txt", "".join(f"{s[0]}\n" for s in scenes[split]))
        for scene_id, image, objects in scenes[split]:
            image.save(root / "JPEGImages" / f"{scene_id}.jpg", quality=95)
            write_text(root / "Annotations" / f"{scene_id}.xml", _voc_xml(scene_id, image, objects))


def _voc_xml(scene_id: str, image: Image.Image, objects: tuple[DrawnObject, ...]) -> str:
    """A VOC annotation; its boxes are 1-based and include their last pixel."""
    annotation = ElementTree.Element("annotation")
    ElementTree.SubElement(annotation, "filename").text = f"{scene_id}.jpg"
    size = ElementTree.SubElement(annotation, "size")
    for tag, value in (("width", image.width), ("height", image.height), ("depth", 3)):
        ElementTree.SubElement(size, tag).text = str(value)
    for drawn in objects:
        element = ElementTree.SubElement(annotation, "object")
        for tag, text in (("name", CLASSES[drawn.label]), ("truncated", "0"), ("difficult", "0")):
            ElementTree.SubElement(element, tag).text = text
        box = ElementTree.SubElement(element, "bndbox")
        x1, y1, x2, y2 = drawn.box()
        for tag, value in (("xmin", x1 + 1), ("ymin", y1 + 1), ("xmax", x2), ("ymax", y2)):
            ElementTree.SubElement(box, tag).text = str(value)
    ElementTree.indent(annotation)
    return ElementTree.tostring(annotation, encoding="unicode") + "\n"


def _write_coco(root: Path, scenes: dict[str, list[Scene]]) -> None:
    for split, name in (("train", "train2017"), ("test", "val2017")):
        (root / name).mkdir(parents=True, exist_ok=True)
        images, annotations = [], []
        for image_id, (scene_id, image, objects) in enumerate(scenes[split], start=1):
            file_name = f"{scene_id}.jpg"
            image.save(root / name / file_name, quality=95)
            images.append({"id": image_id, "file_name": file_name, "width": image.width, "height": image.height})
            annotations += [_coco_annotation(image_id, drawn) for drawn in objects]
        for annotation_id, annotation in enumerate(annotations, start=1):
            annotation["id"] = annotation_id
        categories = [{"id": label + 1, "name": name} for label, name in enumerate(CLASSES)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        write_text(root / "annotations" / f"instances_{name}.json", json.dumps(content) + "\n")


def _coco_annotation(image_id: int, drawn: DrawnObject) -> dict[str, object]:
    x, y = drawn.outline[:, 0], drawn.outline[:, 1]
    width, height = float(np.ptp(x)), float(np.ptp(y))
    area = 0.5 * abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1)))  # the shoelace formula
    return {
        "image_id": image_id,
        "category_id": drawn.label + 1,
        "bbox": [round(v, 2) for v in (float(x.min()), float(y.min()), width, height)],
        "area": round(area, 2),
        "iscrowd": 0,
        "segmentation": [[round(float(v), 2) for v in drawn.outline.ravel()]],
    }
