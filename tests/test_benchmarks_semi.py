"""Fine-tuning on few labels: which images are labelled, a step restated, and the task end to end."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from benchmarks.classification.data import RandomView, image_batches, read_splits
from benchmarks.classification.fine_tuning import fine_tune
from benchmarks.classification.heads import make_classifier
from benchmarks.classification.linear import epoch_order
from benchmarks.classification.semi import labelled_part, read_semi, run_semi
from benchmarks.classification.semi_protocol import SEMI_PROTOCOLS, SemiProtocol
from benchmarks.context import RunContext
from benchmarks.protocol import data_differences
from mocobench.runtime.errors import UserError
from transfer.network import build_network, random_backbone

CONTEXT = RunContext(seed=0, device=torch.device("cpu"), precision="fp32", num_workers=0)
SMALL = SemiProtocol(
    id="x",
    expected_images=(),
    labels=0.5,
    image_size=32,
    test_resize=36,
    batch_size=6,
    bn_batch=6,
    epochs=2,
    learning_rate=0.01,
)


def test_the_papers_rates() -> None:
    assert {name: (p.labels, p.epochs) for name, p in SEMI_PROTOCOLS.items() if name != "smoke"} == {
        "paper": (0.01, 60),
        "10pct": (0.1, 30),
    }
    assert SEMI_PROTOCOLS["paper"].learning_rate == pytest.approx(0.05 * 4096 / 256)


def test_every_class_has_its_share_of_labels(bright_and_dark: Path) -> None:
    train = read_splits(bright_and_dark).train
    half = labelled_part(train, SMALL, CONTEXT)
    assert half.labels == (0, 0, 0, 1, 1, 1)
    assert labelled_part(train, replace(SMALL, labels=0.01), CONTEXT).labels == (0, 1)
    assert labelled_part(train, replace(SMALL, labels=1.0), CONTEXT) == train
    assert labelled_part(train, SMALL, replace(CONTEXT, seed=1)).paths != half.paths


def test_the_only_image_of_a_class_is_labelled(bright_and_dark: Path) -> None:
    train = read_splits(bright_and_dark).train
    assert labelled_part(train.select([2, 7]), replace(SMALL, labels=0.01), CONTEXT).labels == (0, 1)
    few = train.select([0, 6, 7, 8, 9])
    assert labelled_part(few, replace(SMALL, labels=0.5), CONTEXT).labels == (0, 1, 1)
    assert labelled_part(few, replace(SMALL, labels=0.9), CONTEXT).labels == (0, 1, 1, 1, 1)  # 3.6 of 4


def test_a_list_names_the_labelled_images(bright_and_dark: Path, tmp_path: Path) -> None:
    (bright_and_dark / "train" / "dark" / "5.png").rename(bright_and_dark / "train" / "dark" / "d5.png")
    train = read_splits(bright_and_dark).train
    file = tmp_path / "labels.txt"
    file.write_text("d5.png\n")
    context = replace(CONTEXT, label_list=file)
    assert labelled_part(train, SMALL, context).paths == (bright_and_dark / "train" / "dark" / "d5.png",)
    for text, found in (("d5.png\nno.png\n", "no.png, which is not there"), ("", "none"), ("d5.png\nd5.png", "twice")):
        file.write_text(text)
        with pytest.raises(UserError, match=rf"--label-list .*labels\.txt: expected names of images .*{found}"):
            labelled_part(train, SMALL, context)
    with pytest.raises(UserError, match="expected the names of images, one per line, found"):
        labelled_part(train, SMALL, replace(CONTEXT, label_list=tmp_path / "nowhere.txt"))


def test_names_in_a_list_may_have_spaces(bright_and_dark: Path, tmp_path: Path) -> None:
    folder = bright_and_dark / "train"
    (folder / "bright" / "0.png").rename(folder / "bright" / "photo 1.png")
    (folder / "dark").rename(folder / "very dark")
    (bright_and_dark / "val" / "dark").rename(bright_and_dark / "val" / "very dark")
    file = tmp_path / "labels.txt"
    file.write_bytes(b"  photo 1.png \r\n\r\nvery dark/2.png")
    found = labelled_part(read_splits(bright_and_dark).train, SMALL, replace(CONTEXT, label_list=file))
    assert found.paths == (folder / "bright" / "photo 1.png", folder / "very dark" / "2.png")


@pytest.mark.parametrize(
    ("names", "is_a_share"),
    [
        # Half of the six of each class are three, to within one; one of each class is the least.
        ("bright/0 bright/1 bright/2 dark/0 dark/1 dark/2", True),
        ("bright/0 bright/1 bright/2 bright/3 dark/0 dark/1", True),
        ("bright/0 bright/1 bright/2 bright/3 bright/4 dark/0", False),
        ("bright/0 bright/1 bright/2", False),
    ],
)
def test_a_list_that_is_no_share_of_each_class_is_another_split(
    names: str, is_a_share: bool, bright_and_dark: Path, tmp_path: Path
) -> None:
    file = tmp_path / "labels.txt"
    file.write_text("".join(f"{name}.png\n" for name in names.split()))
    *_, identity = read_semi(bright_and_dark, SMALL, replace(CONTEXT, label_list=file))
    (name,) = identity.splits.keys() - {"train", "val"}
    assert name == ("labelled" if is_a_share else "listed")
    assert bool(data_differences(SMALL, identity)) == (not is_a_share)


@pytest.mark.parametrize("bn_batch", [6, 3])
def test_equal_to_the_loop_restated(bright_and_dark: Path, bn_batch: int) -> None:
    labelled, backbone = read_splits(bright_and_dark).train, random_backbone("resnet18", 0)
    protocol = replace(SMALL, bn_batch=bn_batch, epochs=1, image_size=96, test_resize=96, learning_rate=1e-3)
    tuned = fine_tune(backbone, labelled, protocol, CONTEXT)
    network = build_network(backbone)
    network.fc = make_classifier(512, 2, init_std=0.01, seed=0)
    network.train()
    start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0, momentum=0.9, nesterov=True)
    view = RandomView(96, protocol.crop_scale, protocol.crop_ratio, 0.5)
    order = epoch_order(12, seed=0, epoch=0).tolist()
    # Two steps: the cosine's factors are 1 and 1/2.
    batches = image_batches(labelled, order, view=view, batch_size=6, seed=0)
    for rate, (images, labels) in zip((1e-3, 5e-4), batches, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        prepared = backbone.input.prepare(images.float() / 255)
        logits = torch.cat([network(part) for part in prepared.split(bn_batch)])
        F.cross_entropy(logits, labels).backward()
        optimizer.step()
    found, expected = tuned.network.state_dict(), network.state_dict()
    for name in ("fc.weight", "conv1.weight", "layer4.1.conv2.weight", "layer4.1.bn2.running_mean"):
        # ReLUs and small batches amplify the rounding; a wrong rate or mean moves by more than a third.
        movement, difference = (expected[name] - start[name]).norm(), (found[name] - expected[name]).norm()
        assert difference < 0.1 * movement, (name, difference, movement)


def test_the_task_end_to_end(bright_and_dark: Path) -> None:
    backbone = random_backbone("resnet18", 0)
    # Few steps: BN's running statistics must catch up before the validation images are told apart.
    measurement = run_semi(backbone, bright_and_dark, replace(SMALL, epochs=20), CONTEXT)
    assert measurement.metrics == {"top1": 100.0, "top5": 100.0}
    assert measurement.data.splits["labelled"].images == 6
    assert len(measurement.details["loss"]) == 20
    assert measurement.details["per_class"]["dark"] == {"top1": 100.0, "images": 3}


def test_workers_change_nothing(bright_and_dark: Path) -> None:
    backbone = random_backbone("resnet18", 0)
    one, two = (run_semi(backbone, bright_and_dark, SMALL, replace(CONTEXT, num_workers=workers)) for workers in (0, 1))
    assert one == two


def test_a_diverging_loss_names_the_learning_rate(bright_and_dark: Path) -> None:
    with pytest.raises(UserError, match=r"expected a finite loss, found nan; a learning rate of .* is probably too"):
        run_semi(random_backbone("resnet18", 0), bright_and_dark, replace(SMALL, learning_rate=1e30), CONTEXT)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": 0.0}, "--labels 0.0: expected a fraction above 0, at most 1"),
        ({"bn_batch": 1}, "--bn-batch 1: expected at least 2"),
        ({"epochs": 0}, "--epochs 0: expected a number above 0"),
        ({"image_size": 64}, "--image-size 64: expected at most --test-resize 36"),
    ],
)
def test_settings_out_of_range(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(SMALL, **settings)
