"""Is one mean above another? Welch's test, an exact test for few trials, and how many trials would decide.

All tests are one-sided: p is the chance of so large a difference or larger, were there none.
Sources: Welch, Biometrika 34 (1947); Fisher, The Design of Experiments (1935), section 21, for the exact test.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb, hypot, inf, sqrt
from statistics import NormalDist, fmean

ALPHA = 0.05
# With fewer trials on a side, nothing shows that their spread is a normal one, and the exact test is used.
FEW = 5
MOST_SPLITS = 100_000
MOST_TRIALS = 1000


@dataclass(frozen=True)
class Sample:
    """One side of a comparison: its mean, its standard deviation over `num` trials, and the trials where known.

    `spread` is None for a single trial. A number that is taken as it stands, without a spread, is `is_fixed`. Where
    `can_grow`, further trials can be run.
    """

    mean: float
    spread: float | None
    num: int
    values: tuple[float, ...] = ()
    is_fixed: bool = False
    can_grow: bool = False

    @property
    def variance_of_mean(self) -> float:
        return 0.0 if self.is_fixed or self.spread is None else self.spread * self.spread / self.num


def standard_deviation(values: Sequence[float]) -> float | None:
    """Of a sample, n - 1 in the denominator; None for a single value. Much faster than `statistics.stdev`."""
    if len(values) < 2:
        return None
    mean = fmean(values)
    return hypot(*(value - mean for value in values)) / sqrt(len(values) - 1)


def of_values(values: Sequence[float], *, can_grow: bool = True) -> Sample:
    """The sample of these trials."""
    spread = standard_deviation(values)
    return Sample(mean=fmean(values), spread=spread, num=len(values), values=tuple(values), can_grow=can_grow)


def fixed(value: float) -> Sample:
    """A number without a spread."""
    return Sample(mean=value, spread=None, num=1, is_fixed=True)


def is_testable(a: Sample, b: Sample) -> bool:
    """Whether Welch's test can be made: a spread on each side that is not fixed, and not all of it zero."""
    has_spread = all(side.is_fixed or side.spread is not None for side in (a, b))
    return has_spread and a.variance_of_mean + b.variance_of_mean > 0


def welch_p(a: Sample, b: Sample, *, margin: float = 0.0) -> float:
    """p for mean(a) > mean(b) + margin by Welch's test; a one-sample t test where one side is fixed."""
    from scipy.special import stdtr  # loading scipy is slow, and most reports need no test

    error = sqrt(a.variance_of_mean + b.variance_of_mean)
    return float(stdtr(_degrees_of_freedom(a, b), -(a.mean - b.mean - margin) / error))


def half_width(a: Sample, b: Sample, *, level: float = 0.95) -> float | None:
    """Half the width of Welch's confidence interval of mean(a) - mean(b); None where a side has no spread."""
    if not all(side.is_fixed or side.spread is not None for side in (a, b)):
        return None
    error = sqrt(a.variance_of_mean + b.variance_of_mean)
    if error == 0:
        return 0.0
    from scipy.special import stdtrit

    return float(stdtrit(_degrees_of_freedom(a, b), (1 + level) / 2)) * error


def exact_p(a: Sequence[float], b: Sequence[float]) -> float:
    """p for mean(a) > mean(b): the share of all ways to split the trials in two that differ as much or more."""
    pooled = (*a, *b)
    total, seen = sum(pooled), fmean(a) - fmean(b)
    hits = 0
    for chosen in combinations(pooled, len(a)):
        difference = sum(chosen) / len(a) - (total - sum(chosen)) / len(b)
        hits += difference >= seen - 1e-9  # equal splits must count, whatever the order of summation
    return hits / comb(len(pooled), len(a))


def is_exact(a: Sample, b: Sample) -> bool:
    """Whether the exact test decides: all trials are known, two on a side or more, few on one, and splits countable."""
    if not (a.values and b.values) or not 1 < min(a.num, b.num) < FEW:
        return False
    return comb(a.num + b.num, a.num) <= MOST_SPLITS


def trials_to_decide(a: Sample, b: Sample, *, margin: float = 0.0) -> int | None:
    """How many more trials on each side that can grow would make p <= 0.05 at the seen difference and spreads.

    The test is the one for so many trials; the exact one, which asks for the trials themselves, is given those of a
    normal sample. None: not with a thousand, or nothing says how large the spread is.
    """
    if not is_testable(a, b):
        return None
    high, low = (a, b) if a.mean > b.mean else (b, a)
    for more in range(1, MOST_TRIALS + 1):
        one, other = _grown(high, more), _grown(low, more)
        exact = is_exact(one, other)
        p = exact_p(_as_normal(one), _as_normal(other)) if exact else welch_p(one, other, margin=margin)
        if p <= ALPHA:
            return more
    return None


def _grown(side: Sample, more: int) -> Sample:
    return replace(side, num=side.num + more) if side.can_grow else side


def _as_normal(side: Sample) -> Sequence[float]:
    """The trials of a side that has grown: a normal distribution's quantiles, of its mean and spread."""
    if not side.can_grow:
        return side.values
    quantiles = [NormalDist().inv_cdf((number + 0.5) / side.num) for number in range(side.num)]
    scale = (side.spread or 0.0) / (standard_deviation(quantiles) or 1.0)
    return [side.mean + scale * quantile for quantile in quantiles]


def _degrees_of_freedom(a: Sample, b: Sample) -> float:
    """Welch and Satterthwaite's approximation."""
    parts = [side.variance_of_mean for side in (a, b)]
    shares = [part * part / (side.num - 1) for part, side in zip(parts, (a, b), strict=True) if part > 0]
    return sum(parts) ** 2 / sum(shares) if shares else inf
