"""Fine-tuning with the embedded engine: the loop, PreciseBN, and going on where a run was stopped."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from benchmarks.context import RunContext
from benchmarks.curve_log import CurveLog
from benchmarks.detection.embedded.precise_bn import set_precise_statistics
from benchmarks.detection.embedded.rcnn import RCNN
from benchmarks.detection.embedded.solver import build_optimizer, learning_rate_factor
from benchmarks.detection.embedded_checkpoint import load_checkpoint, save_checkpoint
from benchmarks.detection.embedded_model import build_model
from benchmarks.detection.embedded_parts import batches_of_parts, cut_batch
from benchmarks.detection.embedded_step import TRAINING, Training, part_losses, step
from benchmarks.detection.protocol import DetectionProtocol
from benchmarks.detection.records import DetectionSet
from benchmarks.detection.sampler import images_to_train_on
from mocobench.runtime.distributed import copy_from_main
from mocobench.runtime.memory import out_of_memory_means
from mocobench.runtime.progress import progress
from transfer.backbone import Backbone, InputSpec

# A point of the loss curve is the mean over this many iterations.
CURVE, CURVE_STEP = "detector_curve.jsonl", 20
PRECISE_BN = "detection-precise-bn"
LESS_MEMORY = (
    "lower --images-per-pass, which leaves the batch as it is; or --batch-size, --train-short-sides or "
    "--rois-per-image, which change the protocol"
)


@dataclass(frozen=True)
class TrainedDetector:
    """A fine-tuned model, the input convention it was trained with, its classes, and its losses on the way.

    `curve` has one entry per 20 iterations and one for the rest: the iterations done, the learning rate of the last
    of them, and the mean of each loss since the entry before. `seconds` are those of all sessions up to the last
    checkpoint of each; `resumed_at` is the iteration that this session went on from. `batch_norm` says whose
    statistics BatchNorm took.
    """

    model: RCNN
    input: InputSpec
    classes: tuple[str, ...]
    curve: tuple[dict[str, float], ...]
    seconds: float = 0.0
    resumed_at: int = 0
    batch_norm: str = ""


def fine_tune(
    backbone: Backbone,
    train: DetectionSet,
    protocol: DetectionProtocol,
    context: RunContext,
    *,
    run: dict[str, str] | None = None,
) -> TrainedDetector:
    """Fine-tune all weights on the training set, then make BatchNorm's statistics precise.

    With `context.out`, goes on from the last checkpoint there, and leaves `model_final.pth` (Detectron2's layout),
    `detector_curve.jsonl` and TensorBoard events. On several ranks the model is the same on all of them.

    Args:
        run: what tells this run from others in that folder; see `describe_run`.

    Raises:
        UserError: the backbone is not a ResNet-50, the batch does not divide, an image or annotation cannot be used,
            memory runs out, a loss is not finite, or the folder holds another run.
    """
    started = time.monotonic()
    training, is_synchronised = _prepare(backbone, train, protocol, context)
    saved = load_checkpoint(context.out, run or {}, resume=context.resume)
    if saved is not None:
        training.restore(saved)
    earlier = saved.train_seconds if saved is not None else 0.0

    def save(*, is_final: bool = False) -> None:
        checkpoint = training.checkpoint(seconds=earlier + time.monotonic() - started, is_final=is_final)
        save_checkpoint(context.out, run or {}, checkpoint)

    if saved is None or not saved.is_final:
        with out_of_memory_means(f"training on {training.parts.images} images at a time", remedy=LESS_MEMORY):
            _train(training, save)
            _make_precise(training)
        save(is_final=True)
        earlier += time.monotonic() - started
    return TrainedDetector(
        training.model.eval(),
        backbone.input,
        train.classes,
        tuple(training.curve),
        seconds=earlier,
        resumed_at=saved.iteration if saved is not None else 0,
        batch_norm=training.parts.batch_norm(is_synchronised=is_synchronised),
    )


def _prepare(
    backbone: Backbone, train: DetectionSet, protocol: DetectionProtocol, context: RunContext
) -> tuple[Training, bool]:
    """A training at its start, and whether its BatchNorm is synchronised over processes."""
    parts = cut_batch(protocol.batch_size, context.images_per_pass)
    model: nn.Module = build_model(backbone, protocol, num_classes=len(train.classes), seed=context.seed)
    # PyTorch has synchronised BatchNorm on CUDA only.
    is_synchronised = protocol.norm == "SyncBN" and parts.world_size > 1 and context.device.type == "cuda"
    if is_synchronised:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert isinstance(model, RCNN)
    model.to(context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = build_optimizer(
        model,
        learning_rate=protocol.learning_rate,
        momentum=protocol.momentum,
        weight_decay=protocol.weight_decay,
        weight_decay_norm=protocol.weight_decay_norm,
    )
    images = images_to_train_on(train.images)
    return Training(model, optimizer, images, backbone.input, protocol, context, parts), is_synchronised


def _train(training: Training, save: Callable[[], None]) -> None:
    """Run the iterations that are left, with the points of the curve and the checkpoints on the way."""
    protocol, context = training.protocol, training.context
    left = protocol.iterations - training.iteration
    batches = batches_of_parts(
        training.images,
        protocol,
        context,
        training.parts,
        purpose=TRAINING,
        num_batches=left,
        first_batch=training.iteration,
    )
    log = CurveLog(context.out, CURVE, training.curve)
    training.model.train()
    bar = progress(batches, total=protocol.iterations, done=training.iteration, label="fine-tune", unit="iteration")
    for passes in bar:
        learning_rate = _set_learning_rate(training)
        values = step(training, passes)
        bar.set_postfix({name: f"{value:.3f}" for name, value in values.items()}, refresh=False)
        training.since.append(values)
        training.iteration += 1
        is_last = training.iteration == protocol.iterations
        if training.iteration % CURVE_STEP == 0 or is_last:
            means = {name: float(np.mean([each[name] for each in training.since])) for name in values}
            training.curve.append({"iteration": training.iteration, "learning_rate": learning_rate, **means})
            training.since.clear()
            log.write(training.curve[-1])
        if training.iteration % context.checkpoint_every == 0 or is_last:
            save()
    # Running statistics are a matter of each process; those of rank 0 are in the checkpoints.
    copy_from_main(list(training.model.buffers()))


def _set_learning_rate(training: Training) -> float:
    """Set, and return, the learning rate of the iteration about to be run."""
    protocol = training.protocol
    rate = protocol.learning_rate * learning_rate_factor(
        training.iteration,
        decay_iterations=protocol.decay_iterations,
        decay_factor=protocol.decay_factor,
        warmup_iterations=protocol.warmup_iterations,
        warmup_factor=protocol.warmup_factor,
    )
    for group in training.optimizer.param_groups:
        group["lr"] = rate
    return rate


def _make_precise(training: Training) -> None:
    """Recompute BatchNorm's statistics over training batches of their own stream."""
    count = training.protocol.precise_bn_batches
    if count == 0:
        return
    batches = batches_of_parts(
        training.images, training.protocol, training.context, training.parts, purpose=PRECISE_BN, num_batches=count
    )
    bar = progress(batches, total=count, label="precise BN", unit="batch")
    set_precise_statistics(
        training.model,
        (
            partial(part_losses, training, batch, purpose=PRECISE_BN, number=number, iteration=iteration)
            for iteration, passes in enumerate(bar)
            for number, batch in enumerate(passes)
        ),
    )
