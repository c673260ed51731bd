"""The linear probe: linear classifiers on frozen features (MoCo v1, section 4.1; the authors' main_lincls.py)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.classification.checkpoint import checkpoints_of
from benchmarks.classification.confusion import class_details
from benchmarks.classification.data import Batch, CenterView, RandomView, leave_out, listed_batches, read_splits
from benchmarks.classification.extraction import extract_folder
from benchmarks.classification.features import FEATURE_BATCH, FrozenBackbone, freeze, mean_norm
from benchmarks.classification.held_out import hold_out, require_some_to_hold_out
from benchmarks.classification.probe import EpochBatches, fit_probe, grid
from benchmarks.classification.probe_record import best_epoch, choose_head, describe_heads
from benchmarks.classification.protocol import LinearProtocol
from benchmarks.classification.readable import unreadable
from benchmarks.classification.torchvision_data import LabelledImages
from benchmarks.context import Measurement, RunContext
from benchmarks.result import Metric
from benchmarks.run_folder import claim_folder
from mocobench.runtime.distributed import gather_parts, rank, world_size
from mocobench.runtime.progress import say
from mocobench.runtime.seeds import torch_generator
from transfer.backbone import Backbone

METRIC_INFO = {"top1": Metric("top-1"), "top5": Metric("top-5")}


def run_linear(backbone: Backbone, data: Path, protocol: LinearProtocol, context: RunContext) -> Measurement:
    """Probe a backbone on `data/train`, `data/val`; the metrics are those of the last epoch.

    With several rates or decays, they are those of the head that is best on images held out of training. With
    `context.out`, goes on from the last checkpoint there, and leaves the curve and a picture of the confusions.

    Raises:
        UserError: bad data, a folder of another run, nothing to hold out, or a loss that is not finite, of every head
            where there are several.
    """
    splits = read_splits(data)
    claim_folder(backbone, protocol, context, splits.identity)
    if len(grid(protocol)) > 1:
        require_some_to_hold_out(splits.train.labels)
    frozen = freeze(backbone, device=context.device, precision=context.precision)
    center = CenterView(protocol.test_resize, protocol.image_size)
    # The validation crop never changes and neither does the backbone: its features are computed once, exactly.
    of_val = extract_folder(frozen, splits.val, center, context, label="val features")
    val = of_val.batch
    feature_norm = mean_norm(val[0])
    say(f"mean feature norm {feature_norm:.4g}, learning rate {show_rates(protocol)}")
    training = training_features(frozen, splits.train, protocol, context)
    splits = splits.without(train=training.left_out, val=of_val.left_out)
    run = fit_probe(
        training.epoch_batches,
        val,
        protocol,
        held_out=training.held_out,
        num_images=training.num_images,
        num_classes=len(splits.train.classes),
        feature_norm=feature_norm,
        device=context.device,
        seed=context.seed,
        checkpoints=checkpoints_of("probe_last.pth", backbone, splits.identity, protocol, context),
        out=context.out,
    )
    frozen.require_unmoved()
    head = choose_head(run)
    curve = run.curve(head)
    predicted = run.heads.best_classes(val[0], k=1)[:, head, 0]
    details = {
        "feature_norm": feature_norm,
        "curve": curve,
        "best_epoch": best_epoch(curve),
        **class_details(predicted, val[1], splits.train.classes, context),
        **({"heads": describe_heads(run, chosen=head)} if training.held_out is not None else {}),
    }
    return Measurement({name: curve[-1][name] for name in METRIC_INFO}, METRIC_INFO, splits.identity, details)


def show_rates(protocol: LinearProtocol) -> str:
    """The learning rate, or how many of them from which to which."""
    rates = protocol.learning_rate
    return f"{rates[0]:g}" if len(rates) == 1 else f"{min(rates):g} to {max(rates):g} in {len(grid(protocol))} heads"


def epoch_order(num_images: int, *, seed: int, epoch: int) -> torch.Tensor:
    """The order of the training images in one epoch, a permutation (num_images,)."""
    return torch.randperm(num_images, generator=torch_generator(seed, "order", epoch))


@dataclass(frozen=True)
class TrainingFeatures:
    """Batches of features for an epoch, how many images they are, and the features of those held out, if any are.

    `left_out` are the positions of images that cannot be read.
    """

    epoch_batches: EpochBatches
    num_images: int
    held_out: Batch | None
    left_out: tuple[int, ...]


def training_features(
    frozen: FrozenBackbone, train: LabelledImages, protocol: LinearProtocol, context: RunContext
) -> TrainingFeatures:
    """Of all training images, but for those held out where there are several heads to choose from.

    Raises:
        UserError: an image cannot be read, or none where they are skipped.
    """
    center = CenterView(protocol.test_resize, protocol.image_size)
    if protocol.train_views == "center-once":
        found = extract_folder(frozen, train, center, context, label="train features")
        trained, held = _trained_and_held(found.labels, protocol, context)
        features, labels = found.batch
        kept = features[trained], labels[trained]
        batches = cached_batches(kept, batch_size=protocol.batch_size, seed=context.seed)
        held_out = None if held is None else (features[held], labels[held])
        return TrainingFeatures(batches, len(trained), held_out, found.left_out)
    left_out = unreadable(train, context)
    train = leave_out(train, left_out)
    trained, held = _trained_and_held(torch.tensor(train.labels), protocol, context)
    held_out = None
    if held is not None:
        looked_at = train.select(held.tolist())
        held_out = extract_folder(frozen, looked_at, center, context, label="held-out features").batch
    return TrainingFeatures(
        augmented_batches(frozen, train, trained, protocol, context), len(trained), held_out, left_out
    )


def _trained_and_held(
    labels: torch.Tensor, protocol: LinearProtocol, context: RunContext
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Positions that are trained on and, where there are several heads, that are held out."""
    if len(grid(protocol)) == 1:
        return torch.arange(len(labels)), None
    return hold_out(labels, fraction=protocol.held_out, seed=context.seed)


def cached_batches(train: Batch, *, batch_size: int, seed: int) -> EpochBatches:
    """Batches of cached features (N, C) and labels (N,) for an epoch, in that epoch's order, from the `first` on."""
    features, labels = train

    def of_epoch(epoch: int, first: int = 0) -> Iterator[Batch]:
        for chosen in epoch_order(len(labels), seed=seed, epoch=epoch).split(batch_size)[first:]:
            yield features[chosen], labels[chosen]

    return of_epoch


def augmented_batches(
    frozen: FrozenBackbone, train: LabelledImages, trained: torch.Tensor, protocol: LinearProtocol, context: RunContext
) -> EpochBatches:
    """Batches of features of newly drawn views of the images at positions `trained`, in the epoch's order.

    The ranks share the images of a batch; each has all its features.
    """
    view = RandomView(protocol.image_size, protocol.crop_scale, protocol.crop_ratio, protocol.flip_probability)
    labels = torch.tensor(train.labels)

    def of_epoch(epoch: int, first: int = 0) -> Iterator[Batch]:
        order = trained[epoch_order(len(trained), seed=context.seed, epoch=epoch)]
        batches = order.split(protocol.batch_size)[first:]
        views = listed_batches(
            train,
            [batch.tensor_split(world_size())[rank()].tolist() for batch in batches],
            view=view,
            seed=context.seed,
            epoch=epoch,
            num_workers=context.num_workers,
            on_bad_image=context.on_bad_image,
            pin_memory=context.device.type == "cuda",
        )
        for batch, (images, _) in zip(batches, views, strict=True):
            # The optimizer's batch may be too large for one forward pass, and a rank's part of the last one empty.
            parts = [frozen.features(part) for part in images.split(FEATURE_BATCH) if len(part)]
            own = torch.cat([torch.empty(0, frozen.backbone.feature_size, device=context.device), *parts])
            yield gather_parts(own, len(batch)), labels[batch]

    return of_epoch
