"""Multinomial logistic regression by L-BFGS, in coordinates in which its curvature is nearly the same everywhere.

The objective of weights W (K, C) and biases b (K,) on features x (N, C), as scikit-learn has it with C = 1 / (N * l2):

    mean cross-entropy of W x + b, plus l2 / 2 * |W|^2

L-BFGS needs few steps where the curvature is even. So x is centred, turned to its principal axes and divided there by
the square root of about the curvature, and W is changed to match: the objective and its optimum stay the same.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.classification.data import Batch
from mocobench.runtime.errors import UserError

MEMORY = 20  # steps that L-BFGS looks back on


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


def fit_logistic(
    principal: PrincipalAxes, labels: torch.Tensor, *, num_classes: int, l2: float, tolerance: float, max_steps: int
) -> LogisticFit:
    """Minimise the objective, from zero, until no step lowers it by more than `tolerance` of its value.

    Raises:
        UserError: it is not reached in `max_steps` steps.
    """
    from scipy.optimize import minimize

    # Along an axis the curvature of a class is the mean of p (1 - p) x^2: about variance / K where no class stands out.
    scale = (principal.variance / num_classes + l2).sqrt()  # R
    inputs = principal.on_axes / scale  # N x R
    decay = (l2 / scale.square()).double()
    shape = (num_classes, len(scale) + 1)

    def evaluate(flat: np.ndarray) -> tuple[float, np.ndarray]:
        variables = torch.from_numpy(flat).view(shape).to(inputs.device)
        weight, bias = variables[:, :-1], variables[:, -1]
        logits = torch.addmm(bias.float(), inputs, weight.float().T)
        value = F.cross_entropy(logits, labels, reduction="none").double().mean()
        error = logits.softmax(dim=1)
        error[torch.arange(len(labels), device=labels.device), labels] -= 1
        gradient = torch.cat([error.T @ inputs, error.sum(dim=0)[:, None]], dim=1).double() / len(labels)
        gradient[:, :-1] += decay * weight
        value = value + 0.5 * (decay * weight.square()).sum()
        return value.item(), gradient.flatten().cpu().numpy()

    options = {"maxcor": MEMORY, "maxiter": max_steps, "maxfun": 2 * max_steps, "ftol": tolerance, "gtol": 0.0}
    found = minimize(evaluate, np.zeros(shape).ravel(), method="L-BFGS-B", jac=True, options=options)
    if found.nit >= max_steps:
        raise UserError(f"logistic regression, l2 {l2:g}: expected its optimum in --max-steps {max_steps}; raise it")
    variables = torch.from_numpy(found.x).view(shape)
    turned = (variables[:, :-1] / scale.double().cpu()) @ principal.axes.double().cpu().T
    bias = variables[:, -1] - turned @ principal.mean.double().cpu()
    return LogisticFit(turned, bias, float(found.fun), int(found.nfev))


def objective(fit: LogisticFit, labelled: Batch, *, l2: float) -> float:
    """The objective of a fit in float64, in the features' own coordinates."""
    logits = labelled[0].double() @ fit.weight.T + fit.bias
    return (F.cross_entropy(logits, labelled[1]) + 0.5 * l2 * fit.weight.square().sum()).item()
