"""What makes one COCO annotation sound: its keys, category, image, box and segmentation."""

import math
from pathlib import Path
from typing import Any

from benchmarks.detection.annotations import BadAnnotations

REQUIRED_KEYS = ("id", "image_id", "category_id", "bbox", "area")


def find_fault(
    annotation: Any, position: int, category_names: dict[int, str], images: dict[int, dict[str, Any]]
) -> tuple[str, str | None]:
    """Where an annotation stands, for messages, and what is wrong with it apart from its segmentation."""
    if not isinstance(annotation, dict) or type(annotation.get("id")) is not int:
        return f"annotation at position {position}", "it has no id"
    place = f"annotation {annotation['id']}"
    missing = [key for key in REQUIRED_KEYS if key not in annotation]
    if missing:
        return place, f"it has no {', '.join(missing)}"
    category_id, image_id = annotation["category_id"], annotation["image_id"]
    if type(category_id) is not int or category_id not in category_names:
        return place, f"category {category_id} is not among the file's categories"
    place = f"{place} ({category_names[category_id]})"
    if type(image_id) is not int or image_id not in images:
        return place, f"image {image_id} is not among the file's images"
    if not _is_number(annotation["area"]):
        return place, f"area {annotation['area']} is not a number"
    box, image = annotation["bbox"], images[image_id]
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(value) for value in box):
        return place, f"box {box} is not four numbers x, y, width, height"
    x1, y1, x2, y2 = clipped_corners(box, image["width"], image["height"])
    if box[2] <= 0 or box[3] <= 0:
        return place, f"box {box} (x, y, width, height) is empty"
    if x2 <= x1 or y2 <= y1:
        return place, f"box {box} (x, y, width, height) is outside its {image['width']}x{image['height']} image"
    return place, None


def clipped_corners(box: list[float], width: int, height: int) -> tuple[float, float, float, float]:
    """x, y, width, height -> x1, y1, x2, y2 within the image."""
    x, y, w, h = box
    return max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))


def kept_segmentation(
    annotation: dict[str, Any], images: dict[int, dict[str, Any]], file: Path, place: str, bad: BadAnnotations
) -> Any | None:
    """The segmentation without its broken polygons, or None when nothing sound is left; each fault is reported."""
    segmentation, image = annotation.get("segmentation"), images[annotation["image_id"]]
    if isinstance(segmentation, dict):
        fault = _run_length_fault(segmentation, image["width"], image["height"])
        if fault:
            bad.report(file, place, fault)
        return None if fault else segmentation
    if not isinstance(segmentation, list) or not segmentation:
        bad.report(file, place, "segmentation is empty, expected polygons or a run-length code")
        return None
    kept = []
    for number, polygon in enumerate(segmentation, start=1):
        fault = _polygon_fault(polygon)
        if fault:
            bad.report(file, place, f"polygon {number} {fault}")
        else:
            # Of whole numbers Detectron2 would make an array of integers, which cuts off what resizing adds.
            kept.append([float(value) for value in polygon])
    return kept or None


def _polygon_fault(polygon: Any) -> str | None:
    if not isinstance(polygon, list) or not all(_is_number(value) for value in polygon):
        return "is not a flat list of numbers x, y, x, y, ..."
    if not polygon:
        return "is empty"
    if len(polygon) % 2 or len(polygon) < 6:
        return f"has {len(polygon)} numbers, expected x and y of at least three points"
    return None


def _run_length_fault(code: dict[str, Any], width: int, height: int) -> str | None:
    if code.get("size") != [height, width]:
        return f"run-length code has size {code.get('size')}, expected height and width [{height}, {width}]"
    counts = code.get("counts")
    if isinstance(counts, str):
        return None if counts else "run-length code is empty"
    if not isinstance(counts, list) or not all(type(run) is int and run >= 0 for run in counts):
        return "run-length code has no counts"
    if sum(counts) != width * height:
        return f"run-length code covers {sum(counts)} pixels, expected {width * height}"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
