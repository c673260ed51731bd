"""The linear probe: schedule by hand, the authors' loop restated, and proof that the backbone stays frozen."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.classification.features import freeze, mean_norm
from benchmarks.classification.linear import (
    best_epoch,
    cached_batches,
    epoch_order,
    fit_probe,
    learning_rate,
    make_classifier,
    run_linear,
    topk_accuracies,
)
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
    learning_rate=0.05,
    decay_epochs=(6,),
)


def test_learning_rates_of_the_paper_by_hand() -> None:
    rates = [learning_rate(LINEAR_PROTOCOLS["paper"], epoch) for epoch in (0, 59, 60, 79, 80, 99)]
    assert rates == pytest.approx([30, 30, 3, 3, 0.3, 0.3])


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
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(10, 5, generator=generator), torch.arange(10) % 3
    protocol = replace(SMALL, epochs=4, decay_epochs=(1, 3), learning_rate=30.0)
    run = fit_probe(
        cached_batches((features, labels), batch_size=4, seed=7),
        (features, labels),
        protocol,
        num_images=10,
        num_classes=3,
        feature_norm=mean_norm(features),
        device=CPU,
        seed=7,
    )
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
    torch.testing.assert_close(run.classifier.weight.detach(), weight, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(run.classifier.bias.detach(), bias, rtol=1e-4, atol=1e-3)
    assert [record["learning_rate"] for record in run.curve] == pytest.approx([30, 3, 3, 0.3])


def test_separable_features_reach_all_right() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 6
    features = torch.eye(6)[labels] + 0.05 * torch.randn(60, 6, generator=generator)
    run = fit_probe(
        cached_batches((features, labels), batch_size=16, seed=0),
        (features, labels),
        replace(SMALL, epochs=20, decay_epochs=(15,), learning_rate=1.0),
        num_images=60,
        num_classes=6,
        feature_norm=1.0,
        device=CPU,
        seed=0,
    )
    assert run.curve[-1]["top1"] == 100.0
    assert run.curve[-1]["loss"] < run.curve[0]["loss"]


def test_topk_accuracies_by_hand() -> None:
    classifier = nn.Linear(7, 7, bias=False)
    with torch.no_grad():
        classifier.weight.copy_(torch.eye(7))  # logits are the features
    ranking = torch.tensor([[7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]]).expand(4, 7)
    # The labels rank first, second, fifth and sixth.
    accuracies = topk_accuracies(classifier, (ranking, torch.tensor([0, 1, 4, 5])), device=CPU)
    assert accuracies == {"top1": 25.0, "top5": 75.0}


def test_best_epoch_is_the_first_best_and_says_what_it_is() -> None:
    best = best_epoch(({"epoch": 1, "top1": 40.0}, {"epoch": 2, "top1": 50.0}, {"epoch": 3, "top1": 50.0}))
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
    again = run_linear(backbone, bright_and_dark, protocol, replace(CONTEXT, num_workers=2))
    assert again.details == measurement.details


def test_a_diverging_loss_names_the_learning_rate_and_the_feature_norm(bright_and_dark: Path) -> None:
    protocol = replace(SMALL, learning_rate=1e38)
    with pytest.raises(
        UserError, match=r"epoch 1: expected a finite loss, found (nan|inf); a learning rate of 1e\+38 .* mean norm \d"
    ):
        run_linear(random_backbone("resnet18", 0), bright_and_dark, protocol, CONTEXT)


def test_a_backbone_that_moved_is_caught() -> None:
    frozen = freeze(random_backbone("resnet18", 0), device=CPU, precision="fp32")
    frozen.require_unmoved()
    assert not any(parameter.requires_grad for parameter in frozen.network.parameters())
    frozen.network.train()
    frozen.features(torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8))  # BN statistics follow the batch
    with pytest.raises(AssertionError, match=r"bn1\.running_mean moved although the backbone is frozen"):
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
