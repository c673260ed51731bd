"""Detecting with a model that the embedded engine trained, on as many processes as there are."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice, zip_longest
from math import ceil
from typing import Any

from benchmarks.context import RunContext
from benchmarks.detection.detections_file import append_detections, read_detections
from benchmarks.detection.embedded import boxes as box_ops
from benchmarks.detection.embedded.instances import Found
from benchmarks.detection.embedded.masks import paste, to_rle
from benchmarks.detection.embedded_checkpoint import DETECTIONS
from benchmarks.detection.embedded_training import TrainedDetector
from benchmarks.detection.engine import LESS_MEMORY
from benchmarks.detection.input import assemble, inference_batches
from benchmarks.detection.protocol import DetectionProtocol
from benchmarks.detection.records import Detections, DetectionSet, LabelledImage
from mocobench.runtime.device import autocast
from mocobench.runtime.distributed import gather_objects, is_main, rank, world_size
from mocobench.runtime.memory import out_of_memory_means
from mocobench.runtime.progress import progress

# So many images of each process are gathered, and written, together.
CHUNK = 20


def detect(
    trained: TrainedDetector, test: DetectionSet, protocol: DetectionProtocol, context: RunContext
) -> list[Detections]:
    """Detections for every test image, in order, in its own pixels; the same list on every rank.

    With `context.out` they are kept there as they come, and those that are there already are not made again.

    Raises:
        UserError: an image cannot be read, its size is not the annotated one, or memory runs out.
    """
    assert test.classes == trained.classes, (test.classes, trained.classes)
    path = context.out / DETECTIONS if context.out is not None else None
    detections = gather_objects(read_detections(path, test.images) if path is not None and is_main() else [])[0]
    left = test.images[len(detections) :]
    own = _detect(trained, left[rank() :: world_size()], protocol, context)
    bar = progress(total=len(test.images), done=len(detections), label="detect", unit="image")
    for _ in range(ceil(len(left) / (CHUNK * world_size()))):
        with out_of_memory_means("detecting in one image", remedy=LESS_MEMORY):
            shares = gather_objects(list(islice(own, CHUNK)))
        # Rank r has every world-th image from r on, so that the chunk is their first, their second, ...
        chunk = [each for each in chain.from_iterable(zip_longest(*shares)) if each is not None]
        if path is not None and is_main():
            append_detections(path, chunk)
        detections += chunk
        bar.update(len(chunk))
    bar.close()
    return detections


def _detect(
    trained: TrainedDetector, images: tuple[LabelledImage, ...], protocol: DetectionProtocol, context: RunContext
) -> Iterator[Detections]:
    """Detections for some images, one by one."""
    model = trained.model.eval()
    batches = inference_batches(images, protocol, num_workers=context.num_workers)
    for record, batch in zip(images, batches, strict=True):
        pixels, sizes = assemble(batch, trained.input, context.device, size_divisibility=model.size_divisibility)
        with autocast(context.device, context.precision):
            (found,) = model.detect(pixels, sizes)
        yield to_detections(found, record, size=sizes[0])


def to_detections(found: Found, record: LabelledImage, *, size: tuple[int, int]) -> Detections:
    """What was found at the network's `size` (height, width), in the original image's pixels."""
    found = found.cpu()  # at once: pasting looks at single coordinates, for each of which a GPU would wait
    height, width = size
    x, y = record.width / width, record.height / height
    boxes = found.boxes * found.boxes.new_tensor((x, y, x, y))
    boxes = box_ops.clip(boxes, (record.height, record.width))
    kept = box_ops.have_area(boxes)
    boxes = boxes[kept]
    detections = Detections(record.image_id, boxes.numpy(), found.scores[kept].numpy(), found.labels[kept].numpy())
    if found.mask_probabilities is None:
        return detections
    masks: list[dict[str, Any]] = [
        to_rle(paste(probabilities, box, height=record.height, width=record.width))
        for probabilities, box in zip(found.mask_probabilities[kept], boxes, strict=True)
    ]
    return replace(detections, masks=tuple(masks))
