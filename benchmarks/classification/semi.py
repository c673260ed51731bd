"""Fine-tuning on few labels: all layers learn, on a class-balanced part of the training images or a list of them."""

import math
from collections import Counter
from pathlib import Path

import torch
from msgspec import structs

from benchmarks.classification.checkpoint import checkpoints_of
from benchmarks.classification.confusion import class_details
from benchmarks.classification.data import CenterView, LabelledSplits, image_batches, leave_out, read_splits
from benchmarks.classification.features import FEATURE_BATCH, LESS_MEMORY
from benchmarks.classification.fine_tuning import FineTuning, fine_tune, logits_of
from benchmarks.classification.held_out import draw_of_each_class
from benchmarks.classification.readable import unreadable
from benchmarks.classification.semi_protocol import SemiProtocol
from benchmarks.classification.torchvision_data import LabelledImages
from benchmarks.context import Measurement, RunContext
from benchmarks.protocol import LISTED
from benchmarks.result import DataIdentity, Metric, SplitIdentity
from benchmarks.run_folder import claim_folder
from mocobench.runtime.distributed import gather_parts, rank, world_size
from mocobench.runtime.errors import UserError
from mocobench.runtime.memory import out_of_memory_means
from mocobench.runtime.progress import say
from transfer.backbone import Backbone

METRIC_INFO = {"top1": Metric("top-1"), "top5": Metric("top-5")}


def run_semi(backbone: Backbone, data: Path, protocol: SemiProtocol, context: RunContext) -> Measurement:
    """Fine-tune on the labelled part of `data/train`, classify `data/val` after the last epoch.

    With `context.out`, goes on from the last checkpoint there, and leaves the curve and a picture of the confusions.

    Raises:
        UserError: bad data, a bad list, a folder of another run, a loss that is not finite, too little memory, or more
            processes than a batch has passes.
    """
    require_a_pass_for_each_process(protocol)
    splits, labelled, read = read_semi(data, protocol, context)
    claim_folder(backbone, protocol, context, read)
    say(f"{len(labelled)} of {len(splits.train)} images are labelled")
    checkpoints = checkpoints_of("fine_tuned_last.pth", backbone, read, protocol, context)
    tuned = fine_tune(backbone, labelled, protocol, context, checkpoints=checkpoints)
    best, labels = best_classes(tuned, splits.val), torch.tensor(splits.val.labels)
    hits = best == labels[:, None]
    return Measurement(
        metrics={"top1": 100 * hits[:, 0].sum().item() / len(hits), "top5": 100 * hits.sum().item() / len(hits)},
        metric_info=METRIC_INFO,
        data=read,
        details={
            "loss": list(tuned.losses),
            **class_details(best[:, 0], labels, splits.train.classes, context),
        },
    )


def read_semi(
    data: Path, protocol: SemiProtocol, context: RunContext
) -> tuple[LabelledSplits, LabelledImages, DataIdentity]:
    """The splits, the part of the training images that is labelled, and the identity of all of it.

    Raises:
        UserError: bad data, or a bad list.
    """
    splits = read_splits(data)
    labelled = labelled_part(splits.train, protocol, context)
    name = "labelled" if is_share(labelled, splits.train, protocol) else LISTED
    splits, labelled = without_unreadable(splits, labelled, context)
    identity = SplitIdentity(images=len(labelled), list_sha256=labelled.list_sha256())
    read = structs.replace(splits.identity, splits={**splits.identity.splits, name: identity})
    return splits, labelled, read


def is_share(labelled: LabelledImages, train: LabelledImages, protocol: SemiProtocol) -> bool:
    """Whether of each class the protocol's fraction is labelled, to within an image, and at least one."""
    of_class, all_of_class = Counter(labelled.labels), Counter(train.labels)
    return all(
        of_class[label] >= 1 and abs(of_class[label] - protocol.labels * count) <= 1
        for label, count in all_of_class.items()
    )


def require_a_pass_for_each_process(protocol: SemiProtocol) -> None:
    """Refuse processes that would have nothing to do: they share the passes of a batch.

    Raises:
        UserError: there are more processes than passes.
    """
    passes = math.ceil(protocol.batch_size / protocol.bn_batch)
    if world_size() > passes:
        raise UserError(
            f"imagenet-semi: expected at most {passes} processes, one for each --bn-batch {protocol.bn_batch} of "
            f"--batch-size {protocol.batch_size}, found {world_size()}; start fewer"
        )


def without_unreadable(
    splits: LabelledSplits, labelled: LabelledImages, context: RunContext
) -> tuple[LabelledSplits, LabelledImages]:
    """Splits and labelled images without those that cannot be read; training images without a label are not looked at.

    Raises:
        UserError: none can be read, or a class has no training image any more.
    """
    bad, bad_val = unreadable(labelled, context), unreadable(splits.val, context)
    names = {labelled.name(index) for index in bad}
    bad_train = [index for index in range(len(splits.train)) if splits.train.name(index) in names] if bad else ()
    return splits.without(train=bad_train, val=bad_val), leave_out(labelled, bad)


def labelled_part(train: LabelledImages, protocol: SemiProtocol, context: RunContext) -> LabelledImages:
    """The images named in `context.label_list`, or the protocol's fraction of every class, drawn from the seed.

    Raises:
        UserError: the list cannot be read, repeats a name, or names an image that is not there.
    """
    if context.label_list is None:
        if protocol.labels == 1:
            return train
        drawn = draw_of_each_class(train.labels, fraction=protocol.labels, seed=context.seed, leave=0)
        return train.select(drawn.tolist())
    path = context.label_list
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--label-list {path}: expected the names of images, one per line, found {error}") from error
    names = [name for line in lines if (name := line.strip())]
    positions: dict[str, list[int]] = {}
    for index in range(len(train)):
        name = train.name(index)
        for known_as in {name, Path(name).name}:
            positions.setdefault(known_as, []).append(index)
    # One name in many classes is not told from another; a path with the class's folder is.
    faults = [
        f"{name}, which is {'not there' if name not in positions else 'in several classes; write CLASS/NAME'}"
        for name in names
        if len(positions.get(name, ())) != 1
    ]
    chosen = sorted({positions[name][0] for name in names if name in positions})
    if faults or len(chosen) < len(names) or not names:
        fault = faults[0] if faults else "an image twice" if names else "none"
        raise UserError(f"--label-list {path}: expected names of images to train on, each once, found {fault}")
    return train.select(chosen)


@torch.no_grad()
def best_classes(tuning: FineTuning, val: LabelledImages) -> torch.Tensor:
    """The best, second best, ... fifth best class of each image: (N, 5), or as many as there are; on every rank."""
    protocol, context, count = tuning.protocol, tuning.context, min(5, len(val.classes))
    own = torch.arange(len(val)).tensor_split(world_size())[rank()].tolist()
    view, found = CenterView(protocol.test_resize, protocol.image_size), [torch.empty(0, count, dtype=torch.int64)]
    for images, _ in image_batches(
        val,
        own,
        view=view,
        batch_size=FEATURE_BATCH,
        seed=context.seed,
        num_workers=context.num_workers,
        on_bad_image=context.on_bad_image,
        pin_memory=context.device.type == "cuda",
    ):
        with out_of_memory_means(f"classifying {len(images)} images at a time", remedy=LESS_MEMORY):
            found.append(logits_of(tuning, images).cpu().topk(count, dim=1).indices)
    return gather_parts(torch.cat(found), len(val))
