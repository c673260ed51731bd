"""The tests of means: p and intervals by hand, and how many trials would decide."""

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from scipy import stats

from reports.significance import (
    ALPHA,
    Sample,
    exact_p,
    fixed,
    half_width,
    is_exact,
    is_testable,
    of_values,
    standard_deviation,
    trials_to_decide,
    welch_p,
)


def test_standard_deviation_by_hand() -> None:
    assert standard_deviation([1.0, 2.0, 6.0]) == pytest.approx(sqrt(7))  # (4 + 1 + 9) / 2
    assert standard_deviation([5.0]) is None


def test_welch_with_four_degrees_of_freedom() -> None:
    """Variances of the means 1/3 each: t = 3 / sqrt(2/3), df = (2/3)^2 / (2 (1/9) / 2) = 4; Student's closed form."""
    low, high = of_values([1.0, 2.0, 3.0]), of_values([4.0, 5.0, 6.0])
    t2 = 13.5
    part = sqrt(t2) / sqrt(1 + t2 / 4) * (1 - t2 / (12 * (1 + t2 / 4)))
    assert welch_p(high, low) == pytest.approx(0.5 - 3 / 8 * part)
    assert welch_p(high, low) + welch_p(low, high) == pytest.approx(1.0)
    assert half_width(high, low) == pytest.approx(2.776445 * sqrt(2 / 3), rel=1e-6)  # tables: t(0.975, 4)


def test_welch_with_one_degree_of_freedom() -> None:
    """One side has all the variance, and two trials: df = 1, t = 1; Cauchy's distribution."""
    assert welch_p(of_values([0.0, 2.0]), of_values([0.0, 0.0, 0.0])) == pytest.approx(0.25)


def test_one_sample_and_its_margin() -> None:
    """t = 4 / (2 / sqrt 3) with df 2, where the distribution is 1/2 + t / (2 sqrt(2 + t^2))."""
    measured = of_values([2.0, 4.0, 6.0])
    assert welch_p(measured, fixed(0.0)) == pytest.approx(0.5 - sqrt(12) / (2 * sqrt(14)))
    assert welch_p(measured, fixed(0.0), margin=1.0) == pytest.approx(0.5 - sqrt(6.75) / (2 * sqrt(8.75)))
    assert welch_p(measured, fixed(0.0), margin=1.0) == pytest.approx(welch_p(measured, fixed(1.0)))


def test_summaries_test_as_their_trials_do() -> None:
    a, b = of_values([1.0, 2.0, 6.0]), of_values([4.0, 5.5, 6.0, 7.0])
    assert b.spread is not None
    assert welch_p(Sample(b.mean, b.spread, b.num), a) == welch_p(b, a)


def test_exact_by_counting() -> None:
    assert exact_p([3.0, 4.0], [1.0, 2.0]) == pytest.approx(1 / 6)
    assert exact_p([1.0, 2.0], [3.0, 4.0]) == 1.0
    assert exact_p([2.0, 4.0], [1.0, 3.0]) == pytest.approx(2 / 6)  # {3, 4} differs more, no other split as much
    assert exact_p([1.0, 1.0], [1.0, 1.0]) == 1.0
    assert exact_p([4.0, 5.0, 6.0], [1.0, 2.0, 3.0]) == pytest.approx(1 / 20)
    assert exact_p([0.1 + 0.2, 0.3], [0.3, 0.3]) == 1.0  # equal up to rounding


def test_scipy_says_the_same() -> None:
    generator = np.random.default_rng(0)
    for num_a, num_b in ((5, 5), (5, 9), (12, 6)):
        a, b = generator.normal(57.0, 0.3, num_a).tolist(), generator.normal(56.8, 0.6, num_b).tolist()
        welch = stats.ttest_ind(a, b, equal_var=False, alternative="greater")
        assert welch_p(of_values(a), of_values(b)) == pytest.approx(welch.pvalue)
        interval = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
        assert half_width(of_values(a), of_values(b)) == pytest.approx((interval.high - interval.low) / 2)
        one_sample = stats.ttest_1samp(a, 56.9, alternative="greater")
        assert welch_p(of_values(a), fixed(56.9)) == pytest.approx(one_sample.pvalue)
        few = (a[:4], b[:3])
        exact = stats.permutation_test(
            few, lambda x, y: np.mean(x) - np.mean(y), alternative="greater", n_resamples=np.inf
        )
        assert exact_p(*few) == pytest.approx(exact.pvalue)


def test_a_huge_spread_is_no_error() -> None:
    huge = of_values([1e308, 0.0])
    assert huge.spread == pytest.approx(1e308 / sqrt(2))
    assert half_width(huge, of_values([1.0, 2.0])) is not None


def test_what_cannot_be_tested() -> None:
    several = of_values([1.0, 2.0])
    assert not is_testable(several, of_values([1.0]))
    assert not is_testable(of_values([1.0, 1.0]), fixed(3.0))
    assert is_testable(several, fixed(3.0))
    assert half_width(several, of_values([1.0])) is None


def test_few_trials_are_tested_exactly_and_many_are_not() -> None:
    five = of_values([1.0, 2.0, 3.0, 4.0, 5.0])
    assert is_exact(of_values([1.0, 2.0]), five)
    assert not is_exact(five, five)
    assert not is_exact(of_values([1.0, 2.0]), fixed(3.0))
    many = of_values([float(value) for value in range(19)])  # one of 20 splits: p could be 1/20
    assert not is_exact(of_values([20.0]), many)
    assert not is_exact(many, of_values([20.0]))


def test_two_a_side_need_one_more_however_far_apart() -> None:
    """The exact test of 2 + 2 cannot fall below 1/6, that of 3 + 3 reaches 1/20."""
    assert trials_to_decide(of_values([10.0, 10.1]), of_values([1.0, 1.1])) == 1


def test_the_exact_test_of_the_grown_sides_is_asked_where_it_decides() -> None:
    """Means 1.9 apart, standard deviations 1. Of 3 + 3 the normal samples (-1, 0, 1) overlap, so p > 1/20, though
    Welch's t is 2.33 with 4 degrees of freedom, p 0.04. Of 4 + 4, about (-1.18, -0.33, 0.33, 1.18), one split of 70
    differs more: p is 2/70."""
    half = sqrt(0.5)
    low, high = of_values([-half, half]), of_values([1.9 - half, 1.9 + half])
    assert welch_p(replace(high, num=3), replace(low, num=3)) < ALPHA
    assert trials_to_decide(high, low) == 2


@pytest.mark.parametrize("margin", [0.0, 0.1])
def test_the_number_of_trials_is_the_smallest_that_decides(margin: float) -> None:
    measured, published = of_values([66.9, 68.3, 67.0, 67.9, 66.8]), fixed(67.1)
    more = trials_to_decide(measured, published, margin=margin)
    assert more is not None

    def p(extra: int) -> float:
        return welch_p(replace(measured, num=measured.num + extra), published, margin=margin)

    assert p(more) <= ALPHA < p(more - 1)


def test_no_number_of_trials_decides_a_difference_within_the_margin() -> None:
    assert trials_to_decide(of_values([1.0, 1.2]), fixed(1.05), margin=0.1) is None
    assert trials_to_decide(of_values([1.0]), fixed(2.0)) is None
