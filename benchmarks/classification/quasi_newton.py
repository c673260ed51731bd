"""L-BFGS whose first guess at the curvature is a model of it, renewed at every step (Nocedal and Wright, chapter 7)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

MEMORY = 20  # steps that it looks back on
SUFFICIENT_DECREASE = 1e-4  # Armijo's share of the decrease that the slope promises
MOST_HALVINGS = 30
ROUNDING = 1e-6  # of a value: what float32 may hide


@dataclass(frozen=True)
class Point:
    """What is known of the objective at one place: value, gradient, and how to divide by a model of its curvature."""

    value: float
    gradient: torch.Tensor
    divide: Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Move:
    """A step, the change of the gradient along it, and their product."""

    step: torch.Tensor
    change: torch.Tensor
    curvature: float


@dataclass(frozen=True)
class Minimum:
    """The variables, their objective, the evaluations it took, the last moves."""

    variables: torch.Tensor
    value: float
    num_evaluations: int
    history: Sequence[Move]  # the oldest first


def minimise(
    evaluate: Callable[[torch.Tensor], Point],
    start: torch.Tensor,
    *,
    tolerance: float,
    max_steps: int,
    history: Sequence[Move] = (),
) -> Minimum | None:
    """Minimise a convex function until half the decrease that the slope promises is `tolerance` of its value.

    `history` are moves of an earlier search, of nearly the same function, to start from.

    None where that takes more than `max_steps` steps or where rounding hides the way down.
    """
    variables, point = start, evaluate(start)
    num_evaluations = 1
    for _ in range(max_steps):
        direction = -_inverse_curvature(point, history)
        slope = _dot(point.gradient, direction)
        if -slope / 2 <= tolerance * abs(point.value):
            return Minimum(variables, point.value, num_evaluations, history)
        length = 1.0
        for _ in range(MOST_HALVINGS):
            tried = evaluate(variables + length * direction)
            num_evaluations += 1
            if tried.value <= point.value + SUFFICIENT_DECREASE * length * slope:
                break
            # Where rounding hides the decrease, the slope still tells it (Hager and Zhang's approximate condition).
            new_slope = _dot(tried.gradient, direction)
            is_level = tried.value <= point.value + ROUNDING * abs(point.value)
            if is_level and new_slope <= (2 * SUFFICIENT_DECREASE - 1) * slope:
                break
            length /= 2
        else:
            return None
        step, change = length * direction, tried.gradient - point.gradient
        curvature = _dot(step, change)
        if curvature > 0:
            history = [*history, Move(step, change, curvature)][-MEMORY:]
        variables, point = variables + step, tried
    return None


def _inverse_curvature(point: Point, history: Sequence[Move]) -> torch.Tensor:
    """The gradient divided by the curvature: L-BFGS's two loops around the model's division."""
    found, shares = point.gradient.clone(), []
    for move in reversed(history):
        shares.append(_dot(move.step, found) / move.curvature)
        found.sub_(move.change, alpha=shares[-1])
    found = point.divide(found)
    if history:
        found *= history[-1].curvature / _dot(history[-1].change, point.divide(history[-1].change))
    for move, share in zip(history, reversed(shares), strict=True):
        found.add_(move.step, alpha=share - _dot(move.change, found) / move.curvature)
    return found


def _dot(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(torch.dot(one.flatten(), other.flatten()))
