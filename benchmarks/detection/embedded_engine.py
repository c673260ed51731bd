"""The embedded engine: fine-tune an R50-C4 detector from a Backbone, and detect with it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.context import RunContext
from benchmarks.detection.embedded import boxes as box_ops
from benchmarks.detection.embedded.instances import Found
from benchmarks.detection.embedded.masks import paste, to_rle
from benchmarks.detection.embedded.precise_bn import set_precise_statistics
from benchmarks.detection.embedded.rcnn import RCNN
from benchmarks.detection.embedded.solver import build_optimizer, learning_rate_factor
from benchmarks.detection.input import Example, assemble, images_to_train_on, inference_batches, training_batches
from benchmarks.detection.protocol import DetectionProtocol
from benchmarks.detection.records import Detections, DetectionSet, LabelledImage
from mocobench.runtime.device import autocast
from mocobench.runtime.errors import UserError
from mocobench.runtime.files import atomic_file
from mocobench.runtime.progress import progress
from mocobench.runtime.seeds import derive_seed
from transfer.backbone import Backbone, InputSpec, is_counter
from transfer.detectron2_names import detectron2_name

# A point of the loss curve is the mean over this many iterations.
CURVE_STEP = 20


@dataclass(frozen=True)
class TrainedDetector:
    """A fine-tuned model, the input convention it was trained with, its classes, and its losses on the way.

    `curve` has one entry per 20 iterations and one for the rest: the iterations done, the learning rate of the last
    of them, and the mean of each loss since the entry before.
    """

    model: RCNN
    input: InputSpec
    classes: tuple[str, ...]
    curve: tuple[dict[str, float], ...]


def fine_tune(
    backbone: Backbone, train: DetectionSet, protocol: DetectionProtocol, context: RunContext
) -> TrainedDetector:
    """Fine-tune all weights on the training set, then make BatchNorm's statistics precise.

    With `context.out`, writes `model_final.pth` (Detectron2's layout) and `metrics.jsonl` (the curve) there.

    Raises:
        UserError: the backbone is not a ResNet-50, the protocol asks for another model, an image or annotation
            cannot be used, or a loss is not finite.
    """
    images = images_to_train_on(train.images)
    model = build_model(backbone, protocol, num_classes=len(train.classes), seed=context.seed)
    model.to(context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    curve = tuple(_train(model, images, backbone.input, protocol, context))
    _make_precise(model, images, backbone.input, protocol, context)
    if context.out is not None:
        _write(model, curve, context.out)
    return TrainedDetector(model.eval(), backbone.input, train.classes, curve)


def build_model(backbone: Backbone, protocol: DetectionProtocol, *, num_classes: int, seed: int) -> RCNN:
    """The protocol's detector with the backbone's weights and heads drawn from the seed, on the CPU.

    Raises:
        UserError: the backbone is not a ResNet-50, or the protocol asks for what this engine does not have.
    """
    if backbone.arch != "resnet50":
        raise UserError(f"{backbone.provenance.source}: expected a resnet50 for R50-C4, found a {backbone.arch}")
    if protocol.model != "R50-C4" or protocol.norm not in ("SyncBN", "BN"):
        raise UserError(
            f"protocol {protocol.id}: expected model R50-C4 with norm SyncBN or BN for the embedded engine, "
            f"found {protocol.model} with {protocol.norm}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "detection-heads"))
        model = RCNN(
            num_classes=num_classes,
            masks=protocol.masks,
            stride_in_1x1=backbone.stride_in_1x1,
            extra_norm=protocol.extra_norm,
            rois_per_image=protocol.rois_per_image,
            rpn_anchors_per_image=protocol.rpn_anchors_per_image,
            rpn_pre_nms_train=protocol.rpn_pre_nms_train,
            rpn_post_nms_train=protocol.rpn_post_nms_train,
            rpn_pre_nms_test=protocol.rpn_pre_nms_test,
            rpn_post_nms_test=protocol.rpn_post_nms_test,
            score_threshold=protocol.score_threshold,
            nms_threshold=protocol.nms_threshold,
            detections_per_image=protocol.detections_per_image,
        )
    load_backbone_weights(model, backbone)
    return model


def load_backbone_weights(model: RCNN, backbone: Backbone) -> None:
    """Copy every tensor of the backbone to its place: res5 into the heads, the rest into the trunk."""
    translated = {}
    for name, tensor in backbone.tensors.items():
        place = detectron2_name(name)
        translated[("roi_heads." if place.startswith("res5.") else "backbone.") + place] = tensor
    expected = {
        name
        for name in model.state_dict()
        if name.startswith(("backbone.", "roi_heads.res5.")) and not name.startswith("roi_heads.res5.norm.")
    }
    assert {name for name in expected if not is_counter(name)} <= translated.keys() <= expected
    model.load_state_dict(translated, strict=False)


def _sample_generator(context: RunContext, purpose: str, iteration: int) -> torch.Generator:
    """Draws anchors and regions of one iteration, on the device."""
    seed = derive_seed(context.seed, purpose, "sample", iteration)
    return torch.Generator(context.device).manual_seed(seed)


def _losses(
    model: RCNN, batch: list[Example], spec: InputSpec, context: RunContext, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    images, sizes = assemble(batch, spec, context.device)
    targets = [example.targets.to(context.device) for example in batch]
    with autocast(context.device, context.precision):
        return model(images, sizes, targets, generator)


def _train(
    model: RCNN, images: tuple[LabelledImage, ...], spec: InputSpec, protocol: DetectionProtocol, context: RunContext
) -> Iterator[dict[str, float]]:
    """Run all iterations; yield the points of the loss curve."""
    optimizer = build_optimizer(
        model,
        learning_rate=protocol.learning_rate,
        momentum=protocol.momentum,
        weight_decay=protocol.weight_decay,
        weight_decay_norm=protocol.weight_decay_norm,
    )
    factor = partial(
        learning_rate_factor,
        decay_iterations=protocol.decay_iterations,
        decay_factor=protocol.decay_factor,
        warmup_iterations=protocol.warmup_iterations,
        warmup_factor=protocol.warmup_factor,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    batches = training_batches(
        images,
        protocol,
        num_batches=protocol.iterations,
        seed=context.seed,
        purpose="detection-training",
        num_workers=context.num_workers,
    )
    model.train()
    since: list[dict[str, float]] = []
    bar = progress(batches, total=protocol.iterations, label="fine-tune", unit="iteration")
    for iteration, batch in enumerate(bar):
        learning_rate = float(schedule.get_last_lr()[0])
        values = _step(model, batch, spec, optimizer, iteration, context)
        schedule.step()
        since.append(values)
        bar.set_postfix({name: f"{value:.3f}" for name, value in values.items()}, refresh=False)
        done = iteration + 1
        if done % CURVE_STEP == 0 or done == protocol.iterations:
            means = {name: float(np.mean([each[name] for each in since])) for name in values}
            yield {"iteration": done, "learning_rate": learning_rate, **means}
            since = []


def _step(
    model: RCNN,
    batch: list[Example],
    spec: InputSpec,
    optimizer: torch.optim.Optimizer,
    iteration: int,
    context: RunContext,
) -> dict[str, float]:
    """One optimizer step; the total loss and its parts."""
    generator = _sample_generator(context, "detection-training", iteration)
    try:
        losses = _losses(model, batch, spec, context, generator)
    except FloatingPointError as error:
        raise _diverged(iteration, batch, str(error)) from error
    total = torch.stack(list(losses.values())).sum()
    if not total.isfinite():
        parts = ", ".join(f"{name} {float(loss.detach()):g}" for name, loss in losses.items())
        raise _diverged(iteration, batch, parts)
    optimizer.zero_grad()
    total.backward()
    optimizer.step()
    values: dict[str, torch.Tensor] = {"total_loss": total, **losses}
    return {name: float(value.detach()) for name, value in values.items()}


def _diverged(iteration: int, batch: list[Example], found: str) -> UserError:
    ids = ", ".join(str(example.image_id) for example in batch)
    return UserError(
        f"iteration {iteration + 1}, images {ids}: expected finite losses, found {found}; "
        "lower the learning rate or look at these annotations"
    )


def _make_precise(
    model: RCNN, images: tuple[LabelledImage, ...], spec: InputSpec, protocol: DetectionProtocol, context: RunContext
) -> None:
    """Recompute BatchNorm's statistics over training batches of their own stream."""
    purpose = "detection-precise-bn"
    count = protocol.precise_bn_batches
    if count == 0:
        return
    batches = training_batches(
        images, protocol, num_batches=count, seed=context.seed, purpose=purpose, num_workers=context.num_workers
    )
    bar = progress(batches, total=count, label="precise BN", unit="batch")
    set_precise_statistics(
        model,
        (
            partial(_losses, model, batch, spec, context, _sample_generator(context, purpose, iteration))
            for iteration, batch in enumerate(bar)
        ),
    )


def _write(model: RCNN, curve: tuple[dict[str, float], ...], out: Path) -> None:
    """`model_final.pth` and `metrics.jsonl`, each whole or absent."""
    state = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_file(out / "model_final.pth") as path:
        torch.save({"model": state}, path)
    with atomic_file(out / "metrics.jsonl") as path:
        path.write_text("".join(json.dumps(point) + "\n" for point in curve), encoding="utf-8")


def detect(
    trained: TrainedDetector, test: DetectionSet, protocol: DetectionProtocol, context: RunContext
) -> list[Detections]:
    """Detections for every test image, in order, in its own pixels.

    Raises:
        UserError: an image cannot be read, or its size is not the annotated one.
    """
    assert test.classes == trained.classes, (test.classes, trained.classes)
    model = trained.model.eval()
    batches = inference_batches(test.images, protocol, num_workers=context.num_workers)
    bar = progress(batches, total=len(test.images), label="detect", unit="image")
    detections = []
    for record, batch in zip(test.images, bar, strict=True):
        images, sizes = assemble(batch, trained.input, context.device)
        with autocast(context.device, context.precision):
            (found,) = model.detect(images, sizes)
        detections.append(to_detections(found, record, size=sizes[0]))
    return detections


def to_detections(found: Found, record: LabelledImage, *, size: tuple[int, int]) -> Detections:
    """What was found at the network's `size` (height, width), in the original image's pixels."""
    height, width = size
    x, y = record.width / width, record.height / height
    boxes = found.boxes * found.boxes.new_tensor((x, y, x, y))
    boxes = box_ops.clip(boxes, (record.height, record.width))
    kept = box_ops.have_area(boxes)
    boxes = boxes[kept]
    detections = Detections(
        record.image_id, boxes.cpu().numpy(), found.scores[kept].cpu().numpy(), found.labels[kept].cpu().numpy()
    )
    if found.mask_probabilities is None:
        return detections
    masks: list[dict[str, Any]] = [
        to_rle(paste(probabilities, box, height=record.height, width=record.width))
        for probabilities, box in zip(found.mask_probabilities[kept], boxes, strict=True)
    ]
    return replace(detections, masks=tuple(masks))
