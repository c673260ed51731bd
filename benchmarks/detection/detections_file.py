"""The detections of a run as they come: detections.jsonl, one line an image, in the order of the test images.

Numbers are written so that they read back as the very same float32.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.detection.records import Detections, LabelledImage
from mocobench.runtime.errors import UserError
from mocobench.runtime.files import append_text


def append_detections(path: Path, detections: Sequence[Detections]) -> None:
    """Append one line for each image and flush them to disk.

    Raises:
        UserError: they cannot be written.
    """
    append_text(path, "".join(json.dumps(_to_json(each)) + "\n" for each in detections))


def read_detections(path: Path, images: Sequence[LabelledImage]) -> list[Detections]:
    """The detections of the first of `images`, as many as the file has; a half-written last line is cut off it.

    Raises:
        UserError: the file has lines of other images, or lines that are none of ours.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    try:
        found = [_from_json(json.loads(line)) for line in whole.decode("utf-8").splitlines()]
    except (ValueError, KeyError, TypeError) as error:
        found_instead = " ".join(str(error).split())
        raise UserError(
            f"{path}: expected detections of `mocobench bench`, found {found_instead}; remove it"
        ) from error
    ids = [image.image_id for image in images[: len(found)]]
    if [each.image_id for each in found] != ids:
        raise UserError(f"{path}: expected the test images in their order, found others; remove it")
    return found


def _to_json(detections: Detections) -> dict[str, Any]:
    line: dict[str, Any] = {
        "image_id": detections.image_id,
        "boxes": detections.boxes.tolist(),
        "scores": detections.scores.tolist(),
        "labels": detections.labels.tolist(),
    }
    if detections.masks is not None:
        line["masks"] = [{"size": rle["size"], "counts": rle["counts"].decode("ascii")} for rle in detections.masks]
    return line


def _from_json(line: dict[str, Any]) -> Detections:
    masks = None
    if "masks" in line:
        masks = tuple({"size": rle["size"], "counts": rle["counts"].encode("ascii")} for rle in line["masks"])
    return Detections(
        image_id=line["image_id"],
        boxes=np.array(line["boxes"], dtype=np.float32).reshape(-1, 4),
        scores=np.array(line["scores"], dtype=np.float32),
        labels=np.array(line["labels"], dtype=np.int64),
        masks=masks,
    )
