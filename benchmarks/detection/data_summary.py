"""What a run is about to train and test on, as a table to read before it starts."""

import numpy as np

from benchmarks.detection.checks import count_objects
from benchmarks.detection.records import DetectionData, DetectionSet
from mocobench.runtime.distributed import is_main

# COCO's sizes of objects, here by the area of the box in the image's own pixels.
SMALL, LARGE = 32**2, 96**2
COLUMNS = ("images", "without objects", "objects", "small", "medium", "large", "difficult", "crowd")
LINE = 110  # characters
NUM_NAMED = 10  # of what was skipped, so many are shown


def print_summary(data: DetectionData) -> None:
    """Print the summary, once for all processes of a run."""
    if is_main():
        print(data_summary(data), flush=True)


def data_summary(data: DetectionData) -> str:
    """Images, objects and their sizes in both sets, objects of every class, what was skipped and what to know."""
    counts = {"training": _counts(data.train), "test": _counts(data.test)}
    rows = [("", *COLUMNS), *((name, *(str(row[column]) for column in COLUMNS)) for name, row in counts.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    table = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    skipped = data.identity.skipped
    return "\n".join(
        [
            f"data {data.identity.name}: {data.identity.classes} classes",
            *table,
            "small: box below 32 x 32 pixels; large: 96 x 96 and more; crowds are in no other column of objects",
            "objects of each class, training/test:",
            *_per_class(data),
            *([f"skipped: {len(skipped)}"] if skipped else []),
            *(f"  {line}" for line in skipped[:NUM_NAMED]),
            *([f"  and {len(skipped) - NUM_NAMED} more, all in the record"] if len(skipped) > NUM_NAMED else []),
            *(f"note: {note}" for note in data.notes),
        ]
    )


def _counts(detection_set: DetectionSet) -> dict[str, int]:
    """One row of the table."""
    images = detection_set.images
    crowd = np.concatenate([image.crowd for image in images])
    difficult = np.concatenate([image.difficult for image in images])[~crowd]
    boxes = np.concatenate([image.boxes for image in images]).astype(np.float64)[~crowd]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return {
        "images": len(images),
        "without objects": sum(not (~image.crowd).any() for image in images),
        "objects": len(boxes),
        "small": int((area < SMALL).sum()),
        "medium": int(((area >= SMALL) & (area < LARGE)).sum()),
        "large": int((area >= LARGE).sum()),
        "difficult": int(difficult.sum()),
        "crowd": int(crowd.sum()),
    }


def _per_class(data: DetectionData) -> list[str]:
    """`class training/test` in columns, label by label from left to right."""
    counted = zip(data.train.classes, count_objects(data.train), count_objects(data.test), strict=True)
    cells = [f"{name} {train}/{test}" for name, train, test in counted]
    width = max(len(cell) for cell in cells) + 3
    per_line = max(1, LINE // width)
    lines = [cells[start : start + per_line] for start in range(0, len(cells), per_line)]
    return ["  " + "".join(cell.ljust(width) for cell in line).rstrip() for line in lines]
