"""The linear probe: schedule by hand, the authors' loop restated, and proof that the backbone stays frozen."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_classification import PROTOCOLS, TASKS
from torch import nn

from benchmarks.classification.data import RandomView, image_batches, read_splits
from benchmarks.classification.features import freeze, mean_norm
from benchmarks.classification.heads import LinearHeads, Solver, accuracy_by_class, make_classifier, topk_accuracies
from benchmarks.classification.held_out import hold_out
from benchmarks.classification.linear import cached_batches, epoch_order, run_linear
from benchmarks.classification.probe import fit_probe, rate_factor
from benchmarks.classification.probe_record import ProbeRun, best_epoch, choose_head
from benchmarks.classification.protocol import LINEAR_PROTOCOLS, LinearProtocol
from benchmarks.context import RunContext
from mocobench.runtime.errors import UserError
from transfer.backbone import InputSpec
from transfer.network import build_network, random_backbone

CPU = torch.device("cpu")
CONTEXT = RunContext(seed=0, device=CPU, precision="fp32", num_workers=0)
SMALL = LinearProtocol(
    id="x",
    expected_images=(),
    train_views="center-once",
    image_size=32,
    test_resize=36,
    batch_size=4,
    epochs=8,
    learning_rate=(0.05,),
    decay_epochs=(6,),
)


def probe(features: torch.Tensor, labels: torch.Tensor, protocol: LinearProtocol, *, seed: int = 7) -> ProbeRun:
    """Trained and evaluated on the same features."""
    return fit_probe(
        cached_batches((features, labels), batch_size=protocol.batch_size, seed=seed),
        (features, labels),
        protocol,
        held_out=(features, labels) if len(protocol.learning_rate) > 1 else None,
        num_images=len(labels),
        num_classes=int(labels.max()) + 1,
        feature_norm=mean_norm(features),
        device=CPU,
        seed=seed,
    )


def example(num_images: int = 10, channels: int = 5, num_classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(num_images, channels, generator=generator), torch.arange(num_images) % num_classes


def test_learning_rates_of_the_papers_by_hand() -> None:
    protocols = LINEAR_PROTOCOLS
    rates = [30 * rate_factor(protocols["paper"], epoch) for epoch in (0, 59.99, 60, 79, 80, 99)]
    assert rates == pytest.approx([30, 30, 3, 3, 0.3, 0.3])
    # Half a cosine over 90 epochs: 1/2 in the middle, 3/4 at a third.
    assert [rate_factor(protocols["simclr"], at) for at in (0, 30, 45, 90)] == pytest.approx([1, 0.75, 0.5, 0])
    assert rate_factor(protocols["simclr"], 30.5) < rate_factor(protocols["simclr"], 30)
    assert rate_factor(protocols["simsiam"], 30.99) == rate_factor(protocols["simsiam"], 30) == pytest.approx(0.75)
    # Linear scaling of 0.1 and 0.02 for batches of 256.
    assert protocols["simclr"].learning_rate == pytest.approx((0.1 * 4096 / 256,))
    assert protocols["simsiam"].learning_rate == pytest.approx((0.02 * 4096 / 256,))


def test_classifier_starts_as_in_the_paper() -> None:
    classifier = make_classifier(2048, 1000, init_std=0.01, seed=0)
    # Two million draws: the sample mean and deviation are within 5 standard errors of 0 and 0.01.
    assert classifier.weight.mean().abs() < 5 * 0.01 / math.sqrt(2_048_000)
    assert abs(classifier.weight.std().item() - 0.01) < 5 * 0.01 / math.sqrt(2 * 2_048_000)
    assert classifier.bias.abs().max() == 0
    assert torch.equal(classifier.weight, make_classifier(2048, 1000, init_std=0.01, seed=0).weight)
    assert not torch.equal(classifier.weight, make_classifier(2048, 1000, init_std=0.01, seed=1).weight)


def test_an_epoch_visits_every_image_once_in_its_own_order() -> None:
    first = epoch_order(100, seed=0, epoch=0)
    assert first.sort().values.tolist() == list(range(100))
    assert torch.equal(first, epoch_order(100, seed=0, epoch=0))
    assert not torch.equal(first, epoch_order(100, seed=0, epoch=1))
    assert not torch.equal(first, epoch_order(100, seed=1, epoch=0))


def test_cached_batches_keep_features_with_labels_and_the_last_small_batch() -> None:
    labels = torch.arange(10)
    batches = list(cached_batches((labels[:, None].float(), labels), batch_size=4, seed=0)(0))
    assert [len(batch_labels) for _, batch_labels in batches] == [4, 4, 2]
    for features, batch_labels in batches:
        assert torch.equal(features[:, 0].long(), batch_labels)


def test_equal_to_the_authors_loop_restated() -> None:
    """SGD with momentum written out: v = 0.9 v + g, w = w - lr v, lr multiplied by 0.1 at the milestones."""
    features, labels = example()
    run = probe(features, labels, replace(SMALL, epochs=4, decay_epochs=(1, 3), learning_rate=(30.0,)))
    start = make_classifier(5, 3, init_std=0.01, seed=7)
    weight, bias = start.weight.detach().clone(), start.bias.detach().clone()
    weight_speed, bias_speed = torch.zeros_like(weight), torch.zeros_like(bias)
    for epoch, rate in enumerate((30.0, 3.0, 3.0, 0.3)):
        order = epoch_order(10, seed=7, epoch=epoch)
        for chosen in (order[:4], order[4:8], order[8:]):
            x, y = features[chosen], labels[chosen]
            # d cross-entropy / d logits = (softmax - one-hot) / N
            error = ((x @ weight.T + bias).softmax(dim=1) - torch.eye(3)[y]) / len(y)
            weight_speed, bias_speed = 0.9 * weight_speed + error.T @ x, 0.9 * bias_speed + error.sum(dim=0)
            weight, bias = weight - rate * weight_speed, bias - rate * bias_speed
    torch.testing.assert_close(run.heads.weight[0].detach(), weight, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(run.heads.bias[0, :, 0].detach(), bias, rtol=1e-4, atol=1e-3)
    assert [record["learning_rate"] for record in run.curve(0)] == pytest.approx([30, 3, 3, 0.3])


def test_equal_to_the_authors_script_restated(bright_and_dark: Path, tmp_path: Path) -> None:
    """The whole probe as main_lincls.py has it: the network in eval mode, gradients of its last layer alone, SGD."""
    protocol = replace(SMALL, train_views="random-every-epoch", batch_size=5, epochs=3, learning_rate=(0.3,))
    protocol = replace(protocol, decay_epochs=(2,))
    backbone = random_backbone("resnet18", 0)
    measurement = run_linear(backbone, bright_and_dark, protocol, replace(CONTEXT, out=tmp_path))
    (weight, bias), losses = torch.load(tmp_path / "probe_last.pth")["state"]["heads"]["parameters"], []

    train = read_splits(bright_and_dark).train
    model = build_network(backbone)
    model.fc = make_classifier(512, 2, init_std=0.01, seed=0)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name in ("fc.weight", "fc.bias")
    optimizer = torch.optim.SGD(model.fc.parameters(), lr=0.3, momentum=0.9, weight_decay=0.0)
    view = RandomView(32, protocol.crop_scale, protocol.crop_ratio, protocol.flip_probability)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    for epoch in range(3):
        optimizer.param_groups[0]["lr"] = 0.3 * 0.1 ** (epoch >= 2)
        model.eval()
        total, order = 0.0, epoch_order(12, seed=0, epoch=epoch).tolist()
        for images, labels in image_batches(train, order, view=view, batch_size=5, seed=0, epoch=epoch):
            loss = nn.functional.cross_entropy(model((images / 255 - mean) / std), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
        losses.append(total / 12)
    start = make_classifier(512, 2, init_std=0.01, seed=0).weight
    assert (model.fc.weight - start).abs().max() > 0.1  # not for want of any movement
    torch.testing.assert_close(weight[0], model.fc.weight.detach(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(bias[0, :, 0], model.fc.bias.detach(), rtol=1e-3, atol=1e-4)
    assert [point["loss"] for point in measurement.details["curve"]] == pytest.approx(losses, rel=1e-4)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_and_nesterov_are_pytorchs(nesterov: bool) -> None:
    features, labels = example()
    optimizer_name = "nesterov" if nesterov else "sgd"
    protocol = replace(SMALL, epochs=5, optimizer=optimizer_name, learning_rate=(2.0,), weight_decay=(0.01,))
    run = probe(features, labels, protocol)
    classifier = make_classifier(5, 3, init_std=0.01, seed=7)
    optimizer = torch.optim.SGD(classifier.parameters(), lr=2.0, momentum=0.9, weight_decay=0.01, nesterov=nesterov)
    for epoch in range(5):
        for x, y in cached_batches((features, labels), batch_size=4, seed=7)(epoch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(classifier(x), y).backward()
            optimizer.step()
    torch.testing.assert_close(run.heads.weight[0].detach(), classifier.weight.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(run.heads.bias[0, :, 0].detach(), classifier.bias.detach(), rtol=1e-4, atol=1e-5)


def test_lars_by_hand() -> None:
    classifier = nn.Linear(1, 2)
    with torch.no_grad():
        classifier.weight.copy_(torch.tensor([[3.0], [4.0]]))
        classifier.bias.zero_()
    heads = LinearHeads(classifier, Solver((100.0,), (0.0,), 0.9, "lars"), device=CPU)
    heads.step(torch.tensor([[1.0]]), torch.tensor([0]), rate_factor=1.0)
    # logits 3 and 4: p = 1 / (1 + e) = 0.2689 for the label; the gradient is (p - 1, 1 - p), of norm 0.7311 sqrt 2.
    # |weight| = 5, so the step is 100 * 0.001 * 5 = 0.5 along the unit vector (1, -1) / sqrt 2.
    step = 0.5 / math.sqrt(2)
    torch.testing.assert_close(heads.weight.detach().flatten(), torch.tensor([3 + step, 4 - step]))
    # The bias is zero, so its gradient is taken as it is.
    gradient = 100 * math.e / (1 + math.e)
    torch.testing.assert_close(heads.bias.detach().flatten(), torch.tensor([gradient, -gradient]))


@pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "lars"])
def test_a_head_of_a_sweep_is_the_head_trained_alone(optimizer: str) -> None:
    features, labels = example(40, 8, 4)
    settings = replace(SMALL, optimizer=optimizer, batch_size=16, epochs=4, decay_epochs=(2,))
    together = probe(features, labels, replace(settings, learning_rate=(0.1, 3.0), weight_decay=(0.0, 0.01)))
    for head, (rate, decay) in enumerate(((0.1, 0.0), (0.1, 0.01), (3.0, 0.0), (3.0, 0.01))):
        alone = probe(features, labels, replace(settings, learning_rate=(rate,), weight_decay=(decay,)))
        torch.testing.assert_close(together.heads.weight[head], alone.heads.weight[0], rtol=1e-4, atol=1e-6)
        curves = together.curve(head), alone.curve(0)
        assert [point["top1"] for point in curves[0]] == [point["top1"] for point in curves[1]]
        assert [point["loss"] for point in curves[0]] == pytest.approx([point["loss"] for point in curves[1]], rel=1e-4)


def test_a_head_that_diverges_is_not_chosen_and_leaves_the_others_alone() -> None:
    features, labels = example(40, 8, 4)
    run = probe(features, labels, replace(SMALL, learning_rate=(1e38, 0.5)))
    assert not run.epochs[-1]["loss"][0].isfinite()
    assert run.epochs[-1]["loss"][1].isfinite()
    assert choose_head(run) == 1
    alone = probe(features, labels, replace(SMALL, learning_rate=(0.5,)))
    torch.testing.assert_close(run.heads.weight[1], alone.heads.weight[0], rtol=1e-4, atol=1e-6)


def test_the_held_out_part_takes_of_every_class_and_leaves_of_every_class() -> None:
    labels = [0] * 20 + [1] * 3 + [2]
    trained, held = hold_out(labels, fraction=0.25, seed=0)
    assert sorted(trained.tolist() + held.tolist()) == list(range(24))
    # A quarter of 20; 0.75 of 3, rounded; of a single image nothing.
    assert torch.tensor(labels)[held].bincount(minlength=3).tolist() == [5, 1, 0]
    assert not torch.equal(held, hold_out(labels, fraction=0.25, seed=1)[1])


def test_where_every_class_has_one_image_none_can_be_held_out() -> None:
    with pytest.raises(UserError, match=r"expected a class with two training images or more, found one in each; add"):
        hold_out([0, 2, 1], fraction=0.5, seed=0)
    assert [positions.tolist() for positions in hold_out([0, 2, 1, 2], fraction=0.01, seed=0)] in (
        [[0, 1, 2], [3]],
        [[0, 2, 3], [1]],
    )


@pytest.mark.parametrize("task", ["lbfgs", "sweep", "sweep-once"])
def test_where_none_can_be_held_out_is_said_before_any_work(
    task: str, bright_and_dark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (bright_and_dark / "train").glob("*/[1-5].png"):
        path.unlink()
    monkeypatch.setattr("benchmarks.classification.features.FoldedResNet.__call__", None)
    name, _, once = task.partition("-")
    protocol = replace(PROTOCOLS[name], train_views="center-once") if once else PROTOCOLS[name]
    with pytest.raises(UserError, match="found one in each; add images, or use --protocol paper"):
        TASKS[name](random_backbone("resnet18", 0), bright_and_dark, protocol, CONTEXT)


@pytest.mark.parametrize("train_views", ["center-once", "random-every-epoch"])
def test_a_sweep_end_to_end(bright_and_dark: Path, train_views: str) -> None:
    protocol = replace(SMALL, train_views=train_views, epochs=3, learning_rate=(1e-6, 0.05), held_out=0.34)
    backbone = random_backbone("resnet18", 0)
    measurement = run_linear(backbone, bright_and_dark, protocol, CONTEXT)
    heads = measurement.details["heads"]
    assert [(head["learning_rate"], len(head["held_out_top1"])) for head in heads] == [(1e-6, 3), (0.05, 3)]
    assert sum(head["is_chosen"] for head in heads) == 1
    # The validation images choose nothing: with their labels exchanged, the same head is chosen.
    (bright_and_dark / "val" / "bright").rename(bright_and_dark / "val" / "x")
    (bright_and_dark / "val" / "dark").rename(bright_and_dark / "val" / "bright")
    (bright_and_dark / "val" / "x").rename(bright_and_dark / "val" / "dark")
    exchanged = run_linear(backbone, bright_and_dark, protocol, CONTEXT)
    assert exchanged.details["heads"] == heads
    assert exchanged.metrics["top1"] == 100 - measurement.metrics["top1"]


def test_separable_features_reach_all_right() -> None:
    labels = torch.arange(60) % 6
    features = torch.eye(6)[labels] + 0.05 * torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
    settings = replace(SMALL, batch_size=16, epochs=20, decay_epochs=(15,), learning_rate=(1.0,))
    curve = probe(features, labels, settings).curve(0)
    assert curve[-1]["top1"] == 100.0
    assert curve[-1]["loss"] < curve[0]["loss"]


def test_accuracies_by_hand() -> None:
    classifier = nn.Linear(7, 7, bias=False)
    classifier.weight = nn.Parameter(torch.eye(7))  # logits are the features
    classifier.bias = nn.Parameter(torch.zeros(7))
    heads = LinearHeads(classifier, Solver((1.0,), (0.0,), 0.9, "sgd"), device=CPU)
    ranking = torch.tensor([[7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]]).expand(4, 7)
    # The labels rank first, second, fifth and sixth.
    accuracies = topk_accuracies(heads, (ranking, torch.tensor([0, 1, 4, 5])))
    assert {name: values.tolist() for name, values in accuracies.items()} == {"top1": [25.0], "top5": [75.0]}


def test_accuracy_by_class_by_hand() -> None:
    correct, labels = torch.tensor([True, False, True, True]), torch.tensor([0, 0, 0, 2])
    found = accuracy_by_class(correct, labels, ("ape", "bee", "cat"))
    assert found == {"ape": {"top1": pytest.approx(200 / 3), "images": 3}, "cat": {"top1": 100.0, "images": 1}}


def test_best_epoch_is_the_first_best_and_says_what_it_is() -> None:
    best = best_epoch([{"epoch": 1, "top1": 40.0}, {"epoch": 2, "top1": 50.0}, {"epoch": 3, "top1": 50.0}])
    assert best["epoch"] == 2
    assert "not the result" in best["note"]


@pytest.mark.parametrize("train_views", ["center-once", "random-every-epoch"])
def test_the_task_end_to_end(bright_and_dark: Path, train_views: str) -> None:
    backbone = random_backbone("resnet18", 0)
    before = backbone.digest
    protocol = replace(SMALL, train_views=train_views)
    measurement = run_linear(backbone, bright_and_dark, protocol, CONTEXT)
    assert measurement.metrics["top1"] == 100.0
    assert measurement.metrics["top5"] == 100.0
    assert [record["epoch"] for record in measurement.details["curve"]] == list(range(1, 9))
    assert measurement.metrics["top1"] == measurement.details["curve"][-1]["top1"]
    assert replace(backbone).digest == before
    assert measurement.details["per_class"]["dark"] == {"top1": 100.0, "images": 3}
    again = run_linear(backbone, bright_and_dark, protocol, replace(CONTEXT, num_workers=2))
    assert again.details == measurement.details


def test_a_diverging_loss_names_the_learning_rate_and_the_feature_norm(bright_and_dark: Path) -> None:
    protocol = replace(SMALL, learning_rate=(1e38,))
    with pytest.raises(
        UserError, match=r"epoch 1: expected a finite loss, found (nan|inf); a learning rate of 1e\+38 .* mean norm \d"
    ):
        run_linear(random_backbone("resnet18", 0), bright_and_dark, protocol, CONTEXT)


def test_a_backbone_that_moved_is_caught() -> None:
    frozen = freeze(random_backbone("resnet18", 0), device=CPU, precision="fp32")
    frozen.require_unmoved()
    assert not any(parameter.requires_grad for parameter in frozen.network.parameters())
    frozen.network.train()
    frozen.network(torch.rand(2, 3, 32, 32))  # BN statistics follow the batch
    with pytest.raises(AssertionError, match=r"bn1\.running_mean moved although the backbone is frozen"):
        frozen.require_unmoved()


def test_what_computes_the_features_is_proved_too() -> None:
    frozen = freeze(random_backbone("resnet18", 0), device=CPU, precision="fp32")
    frozen.folded.blocks[2].convs[1].bias[5] += 1e-3
    with pytest.raises(AssertionError, match=r"tensor \d+ of the folded network moved although"):
        frozen.require_unmoved()


def test_features_are_prepared_as_the_weights_ask() -> None:
    backbone = random_backbone("resnet18", 0)
    caffe = InputSpec(mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0), channel_order="BGR", max_value=255.0)
    images = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    frozen = freeze(replace(backbone, input=caffe), device=CPU, precision="fp32")
    prepared = images.float()[:, [2, 1, 0]] - torch.tensor(caffe.mean).view(3, 1, 1)
    with torch.no_grad():
        expected = build_network(backbone)(prepared)
    torch.testing.assert_close(frozen.features(images), expected, rtol=1e-4, atol=1e-3)


def test_features_that_are_not_finite_are_refused() -> None:
    backbone = random_backbone("resnet18", 0)
    tensors = {**backbone.tensors, "bn1.weight": torch.full((64,), 3e38)}
    frozen = freeze(replace(backbone, tensors=tensors), device=CPU, precision="fp32")
    with pytest.raises(UserError, match="random: expected finite features at --precision fp32, found NaN or infinity"):
        frozen.features(torch.randint(256, (1, 3, 32, 32), dtype=torch.uint8))


def test_mean_norm_by_hand() -> None:
    assert mean_norm(torch.tensor([[3.0, 4.0], [0.0, 1.0]])) == pytest.approx(3.0)
