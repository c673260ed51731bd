"""Multinomial logistic regression, by L-BFGS with a model of the curvature.

The objective of weights W (K, C) and biases b (K,) on features x (N, C), as scikit-learn has it with C = 1 / (N * l2):

    mean cross-entropy of W x + b, plus l2 / 2 * |W|^2

Its curvature is the mean over images of S (x) x x^T, plus l2, with S (K, K) the covariance of the class drawn from the
predicted probabilities. The model is mean S (x) mean x x^T: on the principal axes of centred x and of mean S it is a
number for each weight, so that dividing by it takes next to no time.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from benchmarks.classification.data import Batch
from benchmarks.classification.quasi_newton import Point, minimise
from mocobench.runtime.errors import UserError

LEAST_SPREAD = 1e-4  # of the largest variance of mean S: the smallest that is believed; one is 0, as logits may shift


@dataclass(frozen=True)
class LogisticFit:
    """`weight` (K, C) and `bias` (K,) in float64, the objective they reach, and the evaluations that it took."""

    weight: torch.Tensor
    bias: torch.Tensor
    objective: float
    num_evaluations: int

    def predict(self, features: torch.Tensor) -> torch.Tensor:
        """The logits (N, K) of features (N, C)."""
        return features @ self.weight.T.float() + self.bias.float()


@dataclass(frozen=True)
class PrincipalAxes:
    """Features about their `mean` (C,) on their principal `axes` (C, R), with the variance (R,) along each."""

    mean: torch.Tensor
    axes: torch.Tensor
    variance: torch.Tensor
    on_axes: torch.Tensor  # (N, R)


def principal_axes(features: torch.Tensor) -> PrincipalAxes:
    """Of features (N, C)."""
    mean = features.mean(dim=0)
    centred = features - mean
    variance, axes = torch.linalg.eigh(centred.T @ centred / len(features))
    return PrincipalAxes(mean, axes, variance.clamp(min=0), centred @ axes)


def _evaluate(variables: torch.Tensor, principal: PrincipalAxes, labels: torch.Tensor, l2: float) -> Point:
    """The objective of weights on the axes with the bias as a last column (K, R + 1).

    In float64, but for the products with the features and what is of their size.
    """
    num_images, weight = len(labels), variables[:, :-1]
    logits = torch.addmm(variables[:, -1].float(), principal.on_axes, weight.float().T)
    value = F.cross_entropy(logits, labels, reduction="none").double().mean() + 0.5 * l2 * weight.square().sum()
    error = logits.softmax(dim=1)  # N x K
    spread = error.mean(dim=0).double().diag() - (error.T @ error).double() / num_images
    error[torch.arange(num_images, device=labels.device), labels] -= 1
    gradient = torch.cat([error.T @ principal.on_axes, error.sum(dim=0)[:, None]], dim=1).double() / num_images
    gradient[:, :-1] += l2 * weight
    variance, class_axes = torch.linalg.eigh(spread)
    variance = variance.clamp(min=LEAST_SPREAD * float(variance.max()))[:, None]
    curvature = torch.cat([variance * principal.variance.double() + l2, variance], dim=1)
    return Point(value.item(), gradient, lambda tensor: class_axes @ ((class_axes.T @ tensor) / curvature))


def fit_logistic(
    principal: PrincipalAxes,
    labels: torch.Tensor,
    *,
    num_classes: int,
    l2: float,
    tolerance: float,
    max_steps: int,
    start: LogisticFit | None = None,
) -> LogisticFit:
    """Minimise the objective, from another fit or from zero, until `tolerance` of its value lies above the optimum.

    Raises:
        UserError: it is not reached in `max_steps` steps.
    """
    axes, mean = principal.axes.double(), principal.mean.double()
    if start is None:
        variables = axes.new_zeros(num_classes, axes.shape[1] + 1)
    else:
        weight, bias = start.weight.to(axes.device), start.bias.to(axes.device)
        variables = torch.cat([weight @ axes, (bias + weight @ mean)[:, None]], dim=1)
    found = minimise(
        lambda variables: _evaluate(variables, principal, labels, l2),
        variables,
        tolerance=tolerance,
        max_steps=max_steps,
    )
    if found is None:
        raise UserError(
            f"logistic regression, l2 {l2:g}: expected its optimum in --max-steps {max_steps}; raise it or --tolerance"
        )
    weight = found.variables[:, :-1] @ axes.T
    bias = found.variables[:, -1] - weight @ mean
    return LogisticFit(weight.cpu(), bias.cpu(), found.value, found.num_evaluations)


def objective(fit: LogisticFit, labelled: Batch, *, l2: float) -> float:
    """The objective of a fit in float64, in the features' own coordinates."""
    logits = labelled[0].double() @ fit.weight.T + fit.bias
    return (F.cross_entropy(logits, labelled[1]) + 0.5 * l2 * fit.weight.square().sum()).item()
