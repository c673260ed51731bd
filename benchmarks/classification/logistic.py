"""Multinomial logistic regression, by L-BFGS with a model of the curvature.

The objective of weights W (K, C) and biases b (K,) on features x (N, C), as scikit-learn has it with C = 1 / (N * l2):

    mean cross-entropy of W x + b, plus l2 / 2 * |W|^2

Its curvature is the mean over images of S (x) x x^T, plus l2, with S (K, K) the covariance of the class drawn from the
predicted probabilities. The model is mean S (x) mean x x^T: on the principal axes of centred x and of mean S it is a
number for each weight, so that dividing by it takes next to no time.

Nearly all that curves lies on the leading axes of x, where an evaluation costs a fraction of one on x itself. So the
weights beside them are fitted with those on them eliminated: at the best ones (Golub and Pereyra's variable
projection). That takes few passes over x.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from benchmarks.classification.data import Batch
from benchmarks.classification.quasi_newton import Move, Point, minimise
from mocobench.runtime.errors import UserError

NUM_AXES = 256  # leading ones: an eighth of the cost of a ResNet-50's 2048 features
LEAST_SPREAD = 1e-4  # of the largest variance of mean S: the smallest that is believed; one is 0, as logits may shift


@dataclass(frozen=True)
class LogisticFit:
    """`weight` (K, C) and `bias` (K,) in float64, the objective they reach, and the evaluations on the leading axes."""

    weight: torch.Tensor
    bias: torch.Tensor
    objective: float
    num_evaluations: int

    def predict(self, features: torch.Tensor) -> torch.Tensor:
        """The logits (N, K) of features (N, C)."""
        return features @ self.weight.T.float() + self.bias.float()


@dataclass(frozen=True)
class PrincipalAxes:
    """Features (N, C) of which the leading principal `axes` (C, R) are known, with the variance (R,) along each.

    `rest` is the mean variance along the directions at right angles to them.
    """

    features: torch.Tensor
    mean: torch.Tensor
    axes: torch.Tensor
    variance: torch.Tensor
    rest: float
    on_axes: torch.Tensor  # (N, R + 1): centred features on the axes, then 1, which the bias multiplies


def principal_axes(features: torch.Tensor) -> PrincipalAxes:
    """The leading axes of features (N, C), by a randomised range finder with a fixed seed: close, not exact.

    See Halko et al., arXiv 0909.4061, section 4. The optimum of a fit does not depend on them, its cost does.
    """
    num_images, size = features.shape
    mean = features.mean(dim=0)
    guess = torch.randn(size, min(size, NUM_AXES), generator=torch.Generator().manual_seed(0)).to(features.device)
    on_guess = features @ guess - mean @ guess
    reached = on_guess.T @ features - on_guess.sum(dim=0)[:, None] * mean
    basis = torch.linalg.qr(reached.T.double())[0]
    on_basis = features @ basis.float() - mean @ basis.float()
    variance, turn = torch.linalg.eigh((on_basis.T @ on_basis).double() / num_images)
    total = torch.linalg.vector_norm(features).double().square() / num_images - mean.double().square().sum()
    rest = max((total - variance.sum()).item(), 0.0) / max(size - len(variance), 1)
    on_axes = torch.cat([on_basis @ turn.float(), features.new_ones(num_images, 1)], dim=1)
    return PrincipalAxes(features, mean, basis @ turn, variance.clamp(min=0), rest, on_axes)


@dataclass(frozen=True)
class Errors:
    """Mean cross-entropy, its gradient by the logits times N (N, K), and mean S as class axes and variances (K, 1)."""

    value: float
    error: torch.Tensor
    class_axes: torch.Tensor
    variance: torch.Tensor


def _errors(logits: torch.Tensor, labels: torch.Tensor) -> Errors:
    rows = torch.arange(len(labels), device=labels.device)
    error = logits.log_softmax(dim=1)
    value = -error[rows, labels].double().mean().item()
    error.exp_()
    spread = error.mean(dim=0).double().diag() - (error.T @ error).double() / len(labels)
    error[rows, labels] -= 1
    variance, class_axes = torch.linalg.eigh(spread)
    return Errors(value, error, class_axes, variance.clamp(min=LEAST_SPREAD * float(variance.max()))[:, None])


@dataclass
class _BestLead:
    """The objective of the weights beside the axes (K, C), at the best weights on the axes and biases: `lead`.

    Each call looks for that `lead` (K, R + 1) from the one before; at the best one, the gradient by the weights
    beside is the whole gradient (variable projection).
    """

    principal: PrincipalAxes
    labels: torch.Tensor
    l2: float
    tolerance: float
    max_steps: int
    lead: torch.Tensor
    history: Sequence[Move] = ()
    num_evaluations: int = 0

    def __call__(self, beside: torch.Tensor) -> Point:
        principal, l2 = self.principal, self.l2
        weight = beside.float()
        logits = torch.addmm(-(weight @ principal.mean), principal.features, weight.T)
        found = minimise(
            lambda lead: self._evaluate(lead, logits),
            self.lead,
            tolerance=self.tolerance,
            max_steps=self.max_steps,
            history=self.history,
        )
        if found is None:
            raise _out_of_reach(l2, self.max_steps)
        self.lead, self.history = found.variables, found.history
        self.num_evaluations += found.num_evaluations

        errors = _errors(torch.addmm(logits, principal.on_axes, self.lead.float().T), self.labels)
        sums = errors.error.sum(dim=0)[:, None]
        gradient = (errors.error.T @ principal.features - sums * principal.mean).double() / len(self.labels)
        gradient = _without(gradient, principal.axes).add_(beside, alpha=l2)
        turn, curvature = errors.class_axes, errors.variance * principal.rest + l2
        value = found.value + 0.5 * l2 * beside.square().sum().item()
        return Point(value, gradient, lambda tensor: turn @ ((turn.T @ tensor) / curvature))

    def _evaluate(self, lead: torch.Tensor, logits: torch.Tensor) -> Point:
        """The objective by the weights on the axes and the biases, on top of what the others make of the logits."""
        weight, on_axes = lead[:, :-1], self.principal.on_axes
        errors = _errors(torch.addmm(logits, on_axes, lead.float().T), self.labels)
        gradient = (errors.error.T @ on_axes).double() / len(self.labels)
        gradient[:, :-1] += self.l2 * weight
        turn = errors.class_axes
        curvature = torch.cat([errors.variance * self.principal.variance + self.l2, errors.variance], dim=1)
        value = errors.value + 0.5 * self.l2 * weight.square().sum().item()
        return Point(value, gradient, lambda tensor: turn @ ((turn.T @ tensor) / curvature))


def _without(weight: torch.Tensor, axes: torch.Tensor) -> torch.Tensor:
    return weight - (weight @ axes) @ axes.T


def _out_of_reach(l2: float, max_steps: int) -> UserError:
    return UserError(
        f"logistic regression, l2 {l2:g}: expected its optimum in --max-steps {max_steps}; raise it or --tolerance"
    )


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
    axes, mean = principal.axes, principal.mean.double()
    if start is None:
        beside, lead = axes.new_zeros(num_classes, len(mean)), axes.new_zeros(num_classes, axes.shape[1] + 1)
    else:
        weight, bias = start.weight.to(axes.device), start.bias.to(axes.device)
        beside = _without(weight, axes)
        lead = torch.cat([weight @ axes, (bias + weight @ mean)[:, None]], dim=1)
    best_lead = _BestLead(principal, labels, l2, tolerance, max_steps, lead)
    found = minimise(best_lead, beside, tolerance=tolerance, max_steps=max_steps)
    if found is None:
        raise _out_of_reach(l2, max_steps)
    weight = found.variables + best_lead.lead[:, :-1] @ axes.T
    bias = best_lead.lead[:, -1] - weight @ mean
    return LogisticFit(weight.cpu(), bias.cpu(), found.value, best_lead.num_evaluations)


def objective(fit: LogisticFit, labelled: Batch, *, l2: float) -> float:
    """The objective of a fit in float64, in the features' own coordinates."""
    logits = labelled[0].double() @ fit.weight.T + fit.bias
    return (F.cross_entropy(logits, labelled[1]) + 0.5 * l2 * fit.weight.square().sum()).item()
