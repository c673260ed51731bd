"""Pictures of a run: objects and detections side by side on test images, and the precision-recall curves."""

import colorsys
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pycocotools import mask as coco_mask

from benchmarks.context import RunContext
from benchmarks.detection.precision_recall import Curve, draw_precision_recall, write_precision_recall
from benchmarks.detection.records import DetectionData, Detections, DetectionSet, LabelledImage
from mocobench.runtime.distributed import is_main
from mocobench.runtime.files import atomic_file
from mocobench.runtime.images import read_rgb

PANEL_SIDE = 720  # pixels of an image's longer side, whatever its own size
HEADING = 26
GAP = 12
FONT_SIZE = 14
LINE_WIDTH = 2
MASK_OPACITY = 0.4
NUM_BEST = 25  # detections drawn in one picture
Color = tuple[int, int, int]
Rectangle = tuple[float, float, float, float]


def after_detection(
    data: DetectionData, detections: Sequence[Detections], curves: Sequence[Curve], context: RunContext
) -> None:
    """With `context.visualize`, write `pictures/*.png`, `precision_recall.png` and `precision_recall.csv`."""
    if not context.visualize or not is_main():
        return
    assert context.out is not None, "pictures are asked for together with a folder"
    draw_pictures(data.test, detections, context.out / "pictures", context.visualize)
    write_precision_recall(curves, context.out / "precision_recall.csv")
    draw_precision_recall(curves, context.out / "precision_recall.png")


def draw_pictures(test: DetectionSet, detections: Sequence[Detections], folder: Path, count: int) -> list[Path]:
    """Draw `count` test images, evenly spread over the set, and return the files.

    A picture has the objects at the left and the best 25 detections at the right, in the colours of their classes.

    Raises:
        UserError: an image cannot be read or a picture cannot be written.
    """
    found_in = {found.image_id: found for found in detections}
    paths = []
    for index in evenly_spread(len(test.images), count):
        record = test.images[index]
        panels = [
            _truth_panel(record, test.classes),
            _detections_panel(record, found_in[record.image_id], test.classes),
        ]
        path = folder / f"{index:05d}_{re.sub(r'[^A-Za-z0-9._()-]+', '-', str(record.image_id))}.png"
        with atomic_file(path) as temporary:
            _side_by_side(panels).save(temporary, format="png")
        paths.append(path)
    return paths


def evenly_spread(num_images: int, count: int) -> list[int]:
    """`count` indices from the first to the last, or all of them where there are no more."""
    if count >= num_images:
        return list(range(num_images))
    return [int(index) for index in np.linspace(0, num_images - 1, count).round()]


def class_color(label: int) -> Color:
    """A colour for a class: hues a golden section apart, so that neighbours differ most."""
    red, green, blue = colorsys.hsv_to_rgb(label * 0.61803398875 % 1, 0.75 - 0.25 * (label % 2), 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def _truth_panel(record: LabelledImage, classes: Sequence[str]) -> Image.Image:
    captions = []
    for label, difficult, crowd in zip(record.labels, record.difficult, record.crowd, strict=True):
        captions.append(classes[label] + " (difficult)" * bool(difficult) + " (crowd)" * bool(crowd))
    masks = None
    if record.segmentations is not None:
        masks = [_decode(one, record.height, record.width) for one in record.segmentations]
    heading = f"ground truth of {record.image_id}: {len(captions)} objects"
    return _panel(record, heading, record.boxes, record.labels, captions, masks)


def _detections_panel(record: LabelledImage, found: Detections, classes: Sequence[str]) -> Image.Image:
    best = np.argsort(-found.scores, kind="stable")[:NUM_BEST]
    captions = [f"{classes[found.labels[i]]} {found.scores[i]:.2f}" for i in best]
    masks = None if found.masks is None else [coco_mask.decode(found.masks[i]) for i in best]
    heading = f"{len(found.scores)} detections" + (
        f", the best {NUM_BEST} drawn" if len(found.scores) > NUM_BEST else ""
    )
    return _panel(record, heading, found.boxes[best], found.labels[best], captions, masks)


def _decode(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Polygons or a run-length code as pixels (height, width) of 0 and 1."""
    if isinstance(segmentation, list):
        segmentation = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        segmentation = coco_mask.frPyObjects(segmentation, height, width)
    pixels: np.ndarray = coco_mask.decode(segmentation)
    return pixels


def _panel(
    record: LabelledImage,
    heading: str,
    boxes: np.ndarray,
    labels: np.ndarray,
    captions: list[str],
    masks: list[np.ndarray] | None,
) -> Image.Image:
    """The image under its heading, with masks, boxes and captions; the first ones are drawn last, on top."""
    scale = PANEL_SIDE / max(record.width, record.height)
    size = (max(1, round(record.width * scale)), max(1, round(record.height * scale)))
    image = read_rgb(record.path).resize(size, Image.Resampling.BILINEAR)
    colors = [class_color(int(label)) for label in labels]
    for color, mask in reversed(list(zip(colors, masks or [], strict=False))):
        shape = Image.fromarray(mask * np.uint8(255 * MASK_OPACITY)).resize(size, Image.Resampling.NEAREST)
        image.paste(color, (0, 0), shape)
    draw = ImageDraw.Draw(image)
    corners = np.clip(boxes.reshape(-1, 2, 2) * scale, 0, np.array(size) - 1).reshape(-1, 4).tolist()
    for color, box in reversed(list(zip(colors, corners, strict=True))):
        draw.rectangle(box, outline=color, width=LINE_WIDTH)
    _write_captions(draw, size, corners, colors, captions)
    panel = Image.new("RGB", (size[0], size[1] + HEADING), "white")
    panel.paste(image, (0, HEADING))
    _write_heading(panel, heading)
    return panel


def _write_heading(panel: Image.Image, heading: str) -> None:
    font = ImageFont.load_default(FONT_SIZE)
    while font.getlength(heading) > panel.width - 8 and len(heading) > 1:
        heading = heading[:-2] + "…"
    ImageDraw.Draw(panel).text((4, HEADING / 2), heading, fill="black", font=font, anchor="lm")


def _write_captions(
    draw: ImageDraw.ImageDraw, size: tuple[int, int], boxes: list[list[float]], colors: list[Color], captions: list[str]
) -> None:
    """Each caption on its class's colour at its box, within the image; clear of others, or else under earlier ones."""
    font = ImageFont.load_default(FONT_SIZE)
    height = FONT_SIZE + 4
    taken: list[Rectangle] = []
    for (x1, y1, x2, y2), caption in zip(boxes, captions, strict=True):
        width = font.getlength(caption) + 6
        rows = (y1 - height, y1, y2, y2 - height, y1 - 2 * height, y1 + height)
        places = [_inside(x, y, width, height, size) for x in (x1, x2 - width) for y in rows]
        free = [one for one in places if not any(_overlap(one, other) for other in taken)]
        taken.append((free or places)[0])
    for rectangle, color, caption in reversed(list(zip(taken, colors, captions, strict=True))):
        draw.rectangle(rectangle, fill=color)
        dark = sum(weight * value for weight, value in zip((0.3, 0.59, 0.11), color, strict=True)) < 128
        position = (rectangle[0] + 3, rectangle[1] + height / 2)
        draw.text(position, caption, fill="white" if dark else "black", font=font, anchor="lm")


def _inside(x: float, y: float, width: float, height: float, size: tuple[int, int]) -> Rectangle:
    """A rectangle moved into the image."""
    x, y = max(0.0, min(x, size[0] - 1 - width)), max(0.0, min(y, size[1] - 1 - height))
    return x, y, x + width, y + height


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _side_by_side(panels: list[Image.Image]) -> Image.Image:
    width = sum(panel.width for panel in panels) + GAP * (len(panels) - 1)
    canvas = Image.new("RGB", (width, max(panel.height for panel in panels)), "white")
    left = 0
    for panel in panels:
        canvas.paste(panel, (left, 0))
        left += panel.width + GAP
    return canvas
