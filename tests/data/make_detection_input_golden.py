"""Write detection_input_golden.json: what the real Detectron2 makes of a few inputs that the file states with it.

    python tests/data/make_detection_input_golden.py       with Detectron2 0.6 installed

Orders and batches come from its TrainingSampler and AspectRatioGroupedDataset; pixels, boxes, polygons and labels from
its DatasetMapper with ResizeShortestEdge and RandomFlip. Of a resized picture every 16th pixel is kept.
"""

import json
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

GOLDEN = Path(__file__).with_suffix("").with_name("detection_input_golden.json")
SAMPLED = 16
SHAPES = [(64, 48), (48, 64), (50, 50), (80, 40), (41, 97), (97, 41), (60, 59)]  # (width, height)
ORDERS = [(7, 0), (7, 2**40 + 3), (100, 12345)]  # (images, seed)
GROUPS = [(1, 1, 0), (2, 1, 0), (2, 2, 0), (2, 2, 1), (3, 2, 1)]  # (batch size, ranks, rank)
VIEWS = [((160, 120), 96, 200, False), ((120, 160), 150, 170, True), ((301, 97), 130, 160, True)]
BOXES = [[10.3, 7.1, 31.0, 40.4], [-4.2, -5.3, 330.0, 170.9], [15.5, 20.5, 45.7, 20.500001], [60.0, 12.0, 61.0, 90.0]]
POLYGON = [10.5, 7.25, 31.0, 7.25, 20.0, 40.5]


def picture(width: int, height: int) -> Image.Image:
    """A picture given by a formula."""
    y, x, channel = np.mgrid[:height, :width, :3]
    return Image.fromarray(((x * x // 7 + 3 * y * (1 + channel) + x * y // 11) % 256).astype(np.uint8))


def order(num_images: int, seed: int) -> list[int]:
    from detectron2.data.samplers import TrainingSampler

    return list(islice(iter(TrainingSampler(num_images, seed=seed)), 3 * min(num_images, 20)))


def batches(batch_size: int, num_ranks: int, rank: int) -> list[list[int]]:
    from detectron2.data.common import AspectRatioGroupedDataset
    from detectron2.data.samplers import TrainingSampler

    sampler = TrainingSampler(len(SHAPES), seed=5)
    sampler._rank, sampler._world_size = rank, num_ranks
    images = ({"index": i, "width": SHAPES[i][0], "height": SHAPES[i][1]} for i in sampler)
    grouped = AspectRatioGroupedDataset(images, batch_size)
    return [[image["index"] for image in batch] for batch in islice(iter(grouped), 8)]


def view(size: tuple[int, int], short_side: int, max_long_side: int, flip: bool) -> dict[str, Any]:
    from detectron2.data import DatasetMapper
    from detectron2.data import transforms as T
    from detectron2.structures import BoxMode

    annotations = [
        {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": label, "segmentation": [POLYGON], "iscrowd": 0}
        for label, box in enumerate(BOXES)
    ]
    mapper = DatasetMapper(
        is_train=True,
        augmentations=[
            T.ResizeShortestEdge([short_side], max_long_side, "choice"),
            T.RandomFlip(prob=1.0 if flip else 0.0),
        ],
        image_format="RGB",
        use_instance_mask=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        picture(*size).save(path)
        entry = {"file_name": str(path), "width": size[0], "height": size[1], "annotations": annotations}
        mapped = mapper(entry)
    instances = mapped["instances"]
    return {
        "shape": list(mapped["image"].shape),
        "pixels": mapped["image"][:, ::SAMPLED, ::SAMPLED].tolist(),
        "boxes": instances.gt_boxes.tensor.tolist(),
        "labels": instances.gt_classes.tolist(),
        "polygon": instances.gt_masks.polygons[0][0].tolist(),
    }


def main() -> None:
    golden = {
        "orders": [{"num_images": n, "seed": seed, "expected": order(n, seed)} for n, seed in ORDERS],
        "groups": {
            "shapes": SHAPES,
            "seed": 5,
            "cases": [
                {"batch_size": size, "num_ranks": ranks, "rank": rank, "expected": batches(size, ranks, rank)}
                for size, ranks, rank in GROUPS
            ],
        },
        "views": {
            "boxes": BOXES,
            "polygon": POLYGON,
            "sampled": SAMPLED,
            "cases": [
                {"size": size, "short_side": short, "max_long_side": cap, "flip": flip}
                | {"expected": view(size, short, cap, flip)}
                for size, short, cap, flip in VIEWS
            ],
        },
    }
    GOLDEN.write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
