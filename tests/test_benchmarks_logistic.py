"""Logistic regression: a case by hand, scikit-learn's optimum, and the task end to end."""

import math
from pathlib import Path

import pytest
import torch

from benchmarks.classification.features import FrozenBackbone
from benchmarks.classification.logistic import LogisticFit, fit_logistic, objective, principal_axes
from benchmarks.classification.logistic_probe import ranked_hits, run_logistic
from benchmarks.classification.protocol import LogisticProtocol
from benchmarks.context import RunContext
from mocobench.runtime.errors import UserError
from transfer.network import random_backbone

CONTEXT = RunContext(seed=0, device=torch.device("cpu"), precision="fp32", num_workers=0)
SMALL = LogisticProtocol(
    id="x", expected_images=(), image_size=32, test_resize=36, held_out=0.34, strengths=(1e-1, 1e-3)
)


def fit(features: torch.Tensor, labels: torch.Tensor, l2: float, max_steps: int = 1000) -> LogisticFit:
    num_classes = int(labels.max()) + 1
    settings = {"num_classes": num_classes, "l2": l2, "tolerance": 1e-10, "max_steps": max_steps}
    return fit_logistic(principal_axes(features), labels, **settings)


def test_two_images_by_hand() -> None:
    found = fit(torch.tensor([[1.0], [-1.0]]), torch.tensor([0, 1]), l2=0.1)
    # By symmetry the weights are w and -w and the biases alike: log(1 + e^-2w) + 0.1 w^2 is least where
    # 0.2 w = 2 / (1 + e^2w).
    w = 0.0
    for _ in range(200):
        w = 0.5 * w + 0.5 * 10 / (1 + math.exp(2 * w))
    torch.testing.assert_close(found.weight, torch.tensor([[w], [-w]], dtype=torch.float64), rtol=1e-4, atol=1e-4)
    assert found.bias[0].item() == pytest.approx(found.bias[1].item(), abs=1e-4)
    assert found.objective == pytest.approx(math.log1p(math.exp(-2 * w)) + 0.1 * w * w, rel=1e-6)


@pytest.mark.parametrize("l2", [1e-2, 1e-4])
def test_the_optimum_is_scikit_learns(l2: float) -> None:
    from sklearn.linear_model import LogisticRegression

    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 5
    features = torch.randn(300, 12, generator=generator) * torch.logspace(0, -2, 12) + 0.3
    features[:, :5] += 0.5 * torch.eye(5)[labels]
    ours = fit(features, labels, l2)
    peer = LogisticRegression(C=1 / (300 * l2), tol=1e-10, max_iter=5000)
    peer.fit(features.double().numpy(), labels.numpy())
    theirs = LogisticFit(torch.from_numpy(peer.coef_), torch.from_numpy(peer.intercept_), 0.0, 0)
    found, expected = (objective(one, (features, labels), l2=l2) for one in (ours, theirs))
    assert found == pytest.approx(expected, rel=1e-6)
    assert ours.objective == pytest.approx(found, rel=1e-6)
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("l2", [1e-2, 1e-5])
def test_the_optimum_is_scikit_learns_with_directions_beside_the_leading_axes(
    l2: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sklearn.linear_model import LogisticRegression

    monkeypatch.setattr("benchmarks.classification.logistic.NUM_AXES", 4)
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 5
    features = torch.randn(300, 12, generator=generator) * torch.logspace(0, -1, 12) + 0.3
    features[:, -5:] += 0.2 * torch.eye(5)[labels]
    axes = principal_axes(features)
    assert axes.axes.shape == (12, 4)
    start = fit_logistic(axes, labels, num_classes=5, l2=1e-1, tolerance=1e-9, max_steps=1000)
    peer = LogisticRegression(C=1 / (300 * l2), tol=1e-10, max_iter=5000)
    peer.fit(features.double().numpy(), labels.numpy())
    theirs = LogisticFit(torch.from_numpy(peer.coef_), torch.from_numpy(peer.intercept_), 0.0, 0)
    expected = objective(theirs, (features, labels), l2=l2)
    for first in (None, start):
        ours = fit_logistic(axes, labels, num_classes=5, l2=l2, tolerance=1e-9, max_steps=1000, start=first)
        assert objective(ours, (features, labels), l2=l2) == pytest.approx(expected, rel=1e-6)
        assert ours.objective == pytest.approx(expected, rel=1e-6)


def test_features_that_do_not_vary_in_some_direction() -> None:
    labels = torch.arange(20) % 2
    features = torch.stack([labels.float(), labels.float(), torch.ones(20)], dim=1)
    found = fit(features, labels, l2=1e-3)
    # The optimum shares the weight between the twins and gives none to the constant.
    torch.testing.assert_close(found.weight[:, 0], found.weight[:, 1], rtol=1e-3, atol=1e-3)
    assert found.weight[:, 2].abs().max() < 1e-3
    assert ranked_hits(found, (features, labels), k=1).all()


def test_another_start_leads_to_the_same_optimum() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 4
    axes = principal_axes(torch.randn(200, 9, generator=generator) + 2 * torch.eye(9)[labels] + 5.0)
    settings = {"num_classes": 4, "tolerance": 1e-9, "max_steps": 1000}
    other = fit_logistic(axes, labels, l2=1e-1, **settings)
    cold = fit_logistic(axes, labels, l2=1e-3, **settings)
    warm = fit_logistic(axes, labels, l2=1e-3, start=other, **settings)
    assert warm.objective == pytest.approx(cold.objective, rel=1e-7)
    torch.testing.assert_close(warm.weight, cold.weight, rtol=1e-2, atol=1e-3)
    # From the optimum itself there is no way to go.
    again = fit_logistic(axes, labels, l2=1e-3, start=cold, **settings)
    assert again.num_evaluations == 1


def test_an_optimum_out_of_reach_is_an_error() -> None:
    labels = torch.arange(20) % 2
    features = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    with pytest.raises(UserError, match=r"l2 1e-06: expected its optimum in --max-steps 2; raise it"):
        fit(features, labels, l2=1e-6, max_steps=2)


def test_the_task_end_to_end(bright_and_dark: Path) -> None:
    measurement = run_logistic(random_backbone("resnet18", 0), bright_and_dark, SMALL, CONTEXT)
    assert measurement.metrics == {"top1": 100.0, "top5": 100.0}
    assert [choice["l2"] for choice in measurement.details["strengths"]] == [1e-1, 1e-3]
    # Both are right about all images held out, so the first counts.
    assert measurement.details["l2"] == 1e-1
    assert measurement.details["per_class"]["dark"] == {"top1": 100.0, "images": 3}


def test_features_that_are_all_zero_tell_nothing(bright_and_dark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FrozenBackbone, "features", lambda self, images: torch.zeros(len(images), 512))
    measurement = run_logistic(random_backbone("resnet18", 0), bright_and_dark, SMALL, CONTEXT)
    assert measurement.metrics == {"top1": 50.0, "top5": 100.0}
    assert measurement.details["objective"] == pytest.approx(math.log(2))  # of two classes of equal size
