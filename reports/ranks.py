"""Spearman's rank correlation."""

from collections.abc import Sequence
from math import sqrt
from statistics import fmean


def rank_correlation(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """Pearson's correlation of the ranks, equal values sharing their mean rank; None where one side is constant."""
    a, b = _centred(_ranks(xs)), _centred(_ranks(ys))
    scale = sqrt(sum(x * x for x in a) * sum(y * y for y in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / scale if scale else None


def _ranks(values: Sequence[float]) -> list[float]:
    below = [sum(other < value for other in values) for value in values]
    return [low + (values.count(value) + 1) / 2 for low, value in zip(below, values, strict=True)]


def _centred(values: Sequence[float]) -> list[float]:
    mean = fmean(values)
    return [value - mean for value in values]
