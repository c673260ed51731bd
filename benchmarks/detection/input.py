"""Images and objects on their way into the detector: resized, flipped, normalised, batched.

A view's draws are a function of (seed, purpose, position in the stream), so results do not depend on workers.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch.utils.data import DataLoader, Dataset

from benchmarks.detection.embedded.instances import Targets
from benchmarks.detection.protocol import DetectionProtocol
from benchmarks.detection.records import LabelledImage
from benchmarks.detection.sampler import images_to_train_on, sampler_seed, stream_of_batches
from mocobench.runtime.errors import UserError
from mocobench.runtime.images import read_rgb
from mocobench.runtime.seeds import torch_generator
from mocobench.runtime.workers import end_with_the_parent, share
from transfer.backbone import InputSpec

# After clipping, a box that is not wider and higher than this is not trained on (Detectron2's filter).
SMALLEST_SIDE = 1e-5


@dataclass(frozen=True)
class Example:
    """An image as the network gets it, uint8 RGB (3, H, W), with its objects in the same pixels."""

    image_id: str | int
    pixels: torch.Tensor
    targets: Targets


def resized_shape(*, height: int, width: int, short_side: int, max_long_side: int) -> tuple[int, int]:
    """Height and width after the short side became `short_side`, or less where the long side would pass its cap.

    Halves round up, and the cap scales the unrounded sides: Detectron2's ResizeShortestEdge.
    """
    scale = short_side / min(height, width)
    new_height, new_width = (short_side, scale * width) if height < width else (scale * height, short_side)
    longest = max(new_height, new_width)
    if longest > max_long_side:
        cap = max_long_side / longest
        new_height, new_width = new_height * cap, new_width * cap
    return int(new_height + 0.5), int(new_width + 0.5)


def make_example(record: LabelledImage, *, short_side: int, max_long_side: int, flip: bool, masks: bool) -> Example:
    """Read, resize (PIL, bilinear) and flip an image and its objects; crowds and empty boxes are left out.

    Raises:
        UserError: the file cannot be read, its size is not the annotated one, masks are asked for and absent, or what
            a loading worker passes on finds no room.
    """
    image = read_rgb(record.path)
    if image.size != (record.width, record.height):
        raise UserError(
            f"{record.path}: expected {record.width} x {record.height} pixels as annotated, "
            f"found {image.width} x {image.height}; mend the annotation or the image"
        )
    height, width = resized_shape(
        height=record.height, width=record.width, short_side=short_side, max_long_side=max_long_side
    )
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    if flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = share(torch.from_numpy(np.array(image))).permute(2, 0, 1)
    return Example(record.image_id, pixels, _targets(record, height=height, width=width, flip=flip, masks=masks))


def _targets(record: LabelledImage, *, height: int, width: int, flip: bool, masks: bool) -> Targets:
    """The objects to train on, in pixels of the resized image."""
    scale = np.array((width / record.width, height / record.height))
    boxes = record.boxes.astype(np.float64).reshape(-1, 2, 2) * scale
    if flip:
        boxes[..., 0] = width - boxes[:, ::-1, 0]
    boxes = boxes.clip(0, (width, height)).reshape(-1, 4).astype(np.float32)
    wanted = ~record.crowd & (boxes[:, 2:] - boxes[:, :2] > SMALLEST_SIDE).all(axis=1)
    kept_masks = None
    if masks:
        if record.segmentations is None:
            raise UserError(f"{record.path}: expected a segmentation for every object, found boxes only")
        moved = {
            int(i): _move_mask(record.segmentations[i], scale=scale, height=height, width=width, flip=flip)
            for i in np.flatnonzero(wanted)
        }
        wanted &= [not _is_empty(moved[i]) if i in moved else False for i in range(len(wanted))]
        kept_masks = tuple(moved[int(i)] for i in np.flatnonzero(wanted))
    kept_boxes, labels = torch.from_numpy(boxes[wanted]), torch.from_numpy(record.labels[wanted])
    return Targets(share(kept_boxes), share(labels), kept_masks)


def _is_empty(mask: Any) -> bool:
    """No polygon, or no pixel."""
    return not mask.any() if isinstance(mask, torch.Tensor) else not mask


def _move_mask(segmentation: Any, *, scale: np.ndarray, height: int, width: int, flip: bool) -> Any:
    """One object's polygons, scaled and flipped as float64 arrays, or its RLE as a bool tensor (height, width)."""
    if isinstance(segmentation, dict):
        return _move_rle(segmentation, height=height, width=width, flip=flip)
    polygons = []
    for polygon in segmentation:
        points = np.asarray(polygon, dtype=np.float64).reshape(-1, 2) * scale
        if flip:
            points[:, 0] = width - points[:, 0]
        polygons.append(points.reshape(-1))
    return polygons


def _move_rle(rle: dict[str, Any], *, height: int, width: int, flip: bool) -> torch.Tensor:
    if isinstance(rle["counts"], list):
        rle = coco_mask.frPyObjects(rle, *rle["size"])
    mask = Image.fromarray(coco_mask.decode(rle)).resize((width, height), Image.Resampling.NEAREST)
    if flip:
        mask = mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return share(torch.from_numpy(np.array(mask).astype(bool)))


@dataclass(frozen=True)
class _TrainingViews(Dataset[Example | UserError]):
    """Item (position, index) is one image at the short side and flip drawn for that position of the stream."""

    images: tuple[LabelledImage, ...]
    protocol: DetectionProtocol
    seed: int
    purpose: str

    def __getitem__(self, item: tuple[int, int]) -> Example | UserError:
        position, index = item
        generator = torch_generator(self.seed, self.purpose, "view", position)
        sides = self.protocol.train_short_sides
        short_side = sides[int(torch.randint(len(sides), (), generator=generator))]
        flip = bool(torch.rand((), generator=generator) < self.protocol.flip_probability)
        masks = self.protocol.masks
        return _example_or_error(self.images[index], self.protocol, short_side=short_side, flip=flip, masks=masks)


@dataclass(frozen=True)
class _TestViews(Dataset[Example | UserError]):
    """Item i is image i at the test size."""

    images: tuple[LabelledImage, ...]
    protocol: DetectionProtocol

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Example | UserError:
        # Targets are not used in testing, so masks need not be there.
        short_side = self.protocol.test_short_side
        return _example_or_error(self.images[index], self.protocol, short_side=short_side, flip=False, masks=False)


def _example_or_error(
    record: LabelledImage, protocol: DetectionProtocol, *, short_side: int, flip: bool, masks: bool
) -> Example | UserError:
    """Errors travel as values: raised in a worker, they would come back wrapped in a traceback."""
    try:
        return make_example(record, short_side=short_side, max_long_side=protocol.max_long_side, flip=flip, masks=masks)
    except UserError as error:
        return error


def training_batches(
    images: tuple[LabelledImage, ...],
    protocol: DetectionProtocol,
    *,
    num_batches: int,
    seed: int,
    purpose: str,
    num_workers: int,
    batch_size: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    first_batch: int = 0,
    passes: int = 1,
) -> Iterator[list[Example]]:
    """`num_batches` training batches of this rank, from its batch `first_batch` on, of the stream of (seed, purpose).

    Images without objects are left out. A batch does not depend on `first_batch`: those before it are skipped
    without reading their images, so a resumed run sees what it would have seen.

    Args:
        batch_size: images per batch of this rank; the protocol's when None.
        passes: play so many ranks in turn. Each of the `num_batches` is then one batch of each of the ranks
            `rank * passes`, ... out of `world_size * passes`, one after another.
    """
    images = images_to_train_on(images)
    streams = [
        stream_of_batches(
            images,
            batch_size=protocol.batch_size if batch_size is None else batch_size,
            seed=sampler_seed(seed, purpose),
            rank=rank * passes + part,
            world_size=world_size * passes,
        )
        for part in range(passes)
    ]
    rounds = islice(zip(*streams, strict=True), first_batch, first_batch + num_batches)
    views = _TrainingViews(images, protocol, seed, purpose)
    loader: DataLoader[Any] = DataLoader(
        views,
        batch_sampler=chain.from_iterable(rounds),
        collate_fn=list,
        num_workers=num_workers,
        worker_init_fn=end_with_the_parent,
    )
    return map(_checked, loader)


def inference_batches(
    images: tuple[LabelledImage, ...], protocol: DetectionProtocol, *, num_workers: int
) -> Iterator[list[Example]]:
    """The images in order at the test size, one by one: no image's result depends on its neighbours' padding."""
    loader: DataLoader[Any] = DataLoader(
        _TestViews(images, protocol),
        batch_size=1,
        collate_fn=list,
        num_workers=num_workers,
        worker_init_fn=end_with_the_parent,
    )
    return map(_checked, loader)


def _checked(batch: list[Example | UserError]) -> list[Example]:
    examples = []
    for item in batch:
        if isinstance(item, UserError):
            raise item
        examples.append(item)
    return examples


def assemble(
    examples: list[Example], spec: InputSpec, device: torch.device, *, size_divisibility: int = 1
) -> tuple[torch.Tensor, list[tuple[int, int]]]:
    """Normalise the images as the weights were trained, pad them with 0 at the bottom and right, and stack them.

    Args:
        size_divisibility: height and width of the stack are the least multiples of it that hold every image.

    Returns:
        Images (N, 3, H, W) float32 on the device, channels last in memory, and each one's (height, width).
    """
    sizes = [(int(e.pixels.shape[1]), int(e.pixels.shape[2])) for e in examples]
    height, width = (math.ceil(max(side) / size_divisibility) * size_divisibility for side in zip(*sizes, strict=True))
    images = torch.zeros((len(examples), 3, height, width), device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    for image, example, (h, w) in zip(images, examples, sizes, strict=True):
        image[:, :h, :w] = spec.prepare(example.pixels.to(device).float() / 255)
    return images, sizes
