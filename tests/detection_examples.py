"""Pictures and weights to ask detectors about: real images, and formulas.

NumPy promises that RandomState's stream never changes, so what comes from a formula is the same on every machine
and with every version of torch.
"""

import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.detection.coco_data import read_coco
from benchmarks.detection.embedded.instances import Targets
from benchmarks.detection.input import Example, make_example
from benchmarks.detection.records import LabelledImage
from benchmarks.detection.sampler import images_to_train_on
from benchmarks.detection.voc_data import read_voc

# How far the last layers are from the size of the others: scores and boxes far apart, so that many detections pass
# the threshold; and about as small as at the start of training.
DECIDED = {
    "cls_score": 2.0,
    "bbox_pred": 0.25,
    "objectness_logits": 1.0,
    "anchor_deltas": 0.2,
    "mask_head.predictor": 1.0,
}
UNDECIDED = {
    "cls_score": 0.3,
    "bbox_pred": 0.03,
    "objectness_logits": 1.0,
    "anchor_deltas": 0.2,
    "mask_head.predictor": 0.02,
}


def fill_by_formula(model: nn.Module, *, seed: int, last_layers: dict[str, float] = DECIDED) -> None:
    """Give every tensor of the model values of its name and the seed.

    Weights are uniform with variance 1 / fan-in, so that activations keep their size, times the factors of
    `last_layers`.
    """
    state = {}
    for name, tensor in model.state_dict().items():
        uniform = 2 * np.random.RandomState(zlib.crc32(f"{seed} {name}".encode())).random_sample(tensor.shape) - 1
        if name.endswith(("num_batches_tracked", "running_mean")):
            values = np.zeros(tensor.shape)
        elif name.endswith("running_var"):
            values = np.ones(tensor.shape)
        elif tensor.ndim == 1:
            size = 0.25 if "conv3" in name else 1.0  # as training leaves the last norm of a residual branch
            values = size * (1 + 0.3 * uniform) if name.endswith("norm.weight") else 0.1 * uniform
        else:
            fan_in = tensor.shape[0] if "deconv" in name else int(np.prod(tensor.shape[1:]))
            factor = next((value for part, value in last_layers.items() if part in name), 1.0)
            values = factor * np.sqrt(3 / fan_in) * uniform
        state[name] = torch.from_numpy(np.asarray(values)).to(tensor.dtype)
    model.load_state_dict(state, strict=True)


@torch.no_grad()
def resize_last_layers(model: nn.Module, *, now: dict[str, float], then: dict[str, float]) -> None:
    """Turn last layers of the sizes `now` into those of the sizes `then`."""
    for name, parameter in model.named_parameters():
        for part in now:
            if part in name and name.endswith("weight"):
                parameter.mul_(then[part] / now[part])


@torch.no_grad()
def forget_background(model: nn.Module) -> None:
    """Give the background the mean logit of the classes: a little training has made nearly every region background."""
    for name, parameter in model.named_parameters():
        if ".cls_score." in name:
            parameter[-1] = parameter[:-1].mean(dim=0)


@dataclass(frozen=True)
class Picture:
    """An image as it is on disk (size and id) and as the network gets it."""

    record: LabelledImage
    example: Example


# Each object is a region to train on.
MOST_OBJECTS = 6


def real_pictures(
    data: Path, *, masks: bool, short_sides: tuple[int, ...], num_pictures: int, num_classes: int
) -> list[Picture]:
    """Images of as many shapes as there are, small, every other one flipped: COCO's for masks, else VOC's.

    Classes past `num_classes` are folded into those below it.
    """
    if masks:
        found = read_coco(
            data / "coco-mini",
            train_splits=("train2017",),
            test_splits=("val2017",),
            masks=True,
            on_bad_annotation="skip",
        ).train
    else:
        folder = data / "voc2012-mini/VOC2012"
        found = read_voc(folder, train_splits=("trainval",), test_splits=("test",), classes="voc").train
    images = [image for image in images_to_train_on(found.images) if (~image.crowd).sum() <= MOST_OBJECTS]
    first = {(image.width, image.height): image for image in reversed(images)}
    shapes = sorted(first, key=lambda shape: shape[0] / shape[1])
    chosen = [first[shapes[i]] for i in np.linspace(0, len(shapes) - 1, num_pictures).astype(int)]
    pictures = []
    for number, record in enumerate(chosen):
        short_side = short_sides[number % len(short_sides)]
        flip = number % 2 == 1
        example = make_example(record, short_side=short_side, max_long_side=2 * short_side, flip=flip, masks=masks)
        targets = replace(example.targets, labels=example.targets.labels % num_classes)
        pictures.append(Picture(record, replace(example, targets=targets)))
    return pictures


def picture_by_formula(number: int, *, height: int, width: int, num_classes: int, masks: bool) -> Picture:
    """Flat squares of random colours, as uint8, with three objects somewhere; on disk it is half as large again."""
    random = np.random.RandomState(number)
    squares = random.randint(0, 256, (3, -(-height // 8), -(-width // 8))).astype(np.uint8)
    pixels = np.kron(squares, np.ones((1, 8, 8), np.uint8))[:, :height, :width]
    corners = random.randint(0, 1000, (3, 4)) / 1000
    low, high = 0.5 * corners[:, :2], 0.5 + 0.5 * corners[:, 2:]
    boxes = (np.concatenate((low, high), axis=1) * (width, height, width, height)).astype(np.float32)
    labels = random.randint(0, num_classes, 3)
    polygons = tuple([_diamond(box)] for box in boxes.astype(np.float64)) if masks else None
    targets = Targets(torch.from_numpy(boxes), torch.from_numpy(labels), polygons)
    nothing = np.zeros(0, bool)
    record = LabelledImage(
        number, Path(f"{number}.png"), width * 3 // 2, height * 3 // 2, np.zeros((0, 4)), nothing, nothing, nothing
    )
    return Picture(record, Example(number, torch.from_numpy(np.ascontiguousarray(pixels)), targets))


def _diamond(box: np.ndarray) -> np.ndarray:
    x1, y1, x2, y2 = box
    return np.array([(x1 + x2) / 2, y1, x2, (y1 + y2) / 2, (x1 + x2) / 2, y2, x1, (y1 + y2) / 2])
