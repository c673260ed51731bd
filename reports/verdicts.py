"""Verdicts: each claim supported, contradicted or undecided by measured results; not measured where there are none."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan
from statistics import fmean
from typing import Any

from reports.cells import NOTHING, published_value, signed, source_of
from reports.claims import Claim, published_side
from reports.formats.blocks import PLAIN, Row, Table
from reports.published import Published
from reports.significance import (
    ALPHA,
    Sample,
    exact_p,
    fixed,
    half_width,
    is_exact,
    is_testable,
    of_values,
    trials_to_decide,
    welch_p,
)
from reports.trials import Comparable, Measured, table_key
from reports.twins import measured_twins

SUPPORTED, CONTRADICTED, UNDECIDED, NOT_MEASURED = "supported", "contradicted", "undecided", "not measured"


@dataclass(frozen=True)
class Verdict:
    """The answer to a claim. `p` belongs to the answer's own direction; `more_trials` is for an undecided one."""

    claim: Claim
    answer: str
    higher: str = NOTHING
    lower: str = NOTHING
    difference: str = NOTHING
    test: str = NOTHING
    p: float | None = None
    more_trials: int | None = None


@dataclass(frozen=True)
class Side:
    """One side of a claim as found: the numbers to test, and in words what they are."""

    sample: Sample
    words: str
    is_measured: bool


class MixedError(ValueError):
    """A side's measured rows differ in engine, precision, setting or the like, so they are no trials of one thing."""


def judge(claim: Claim, tables: Sequence[Comparable], published: Sequence[Published]) -> Verdict:
    """The verdict on a claim. At least one side has to be measured; a published number may stand for the other."""
    try:
        higher, lower = (_find_side(claim, side, tables, published) for side in (claim.higher, claim.lower))
    except MixedError as error:
        return Verdict(claim, UNDECIDED, test=f"none: {error}")
    if higher is None or lower is None or not (higher.is_measured or lower.is_measured):
        return Verdict(claim, NOT_MEASURED)
    test = _test(higher.sample, lower.sample, tolerance=claim.tolerance)
    answer, p, more = UNDECIDED, min(test.p_higher, test.p_lower), None
    if p <= ALPHA:
        answer = SUPPORTED if test.p_higher < test.p_lower else CONTRADICTED
    else:
        more = trials_to_decide(higher.sample, lower.sample, margin=test.margin)
    return Verdict(
        claim,
        answer,
        higher=higher.words,
        lower=lower.words,
        difference=_difference(higher.sample, lower.sample),
        test=test.words,
        p=None if isnan(p) else p,
        more_trials=more,
    )


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """A line for each claim: the answer, the two sides, the test with its p, and what would decide it."""
    columns = ("claim", "answer", "higher", "lower", "difference", "test", "p", "more trials to decide")
    rows = []
    for one in verdicts:
        p = NOTHING if one.p is None else f"{one.p:.3f}" if one.p >= 0.001 else "< 0.001"
        more = NOTHING if one.more_trials is None else f"{one.more_trials} a side"
        cells = (one.claim.text, one.answer, one.higher, one.lower, one.difference, one.test, p, more)
        rows.append(Row(PLAIN, cells))
    return Table(columns=columns, rows=tuple(rows), num_left_words=6, num_right_words=1)


@dataclass(frozen=True)
class Test:
    """p for higher above lower and for the reverse, NaN where nothing can be tested, and the test in words."""

    p_higher: float
    p_lower: float
    words: str
    margin: float = 0.0


def _test(a: Sample, b: Sample, *, tolerance: float) -> Test:
    if is_exact(a, b):
        words = f"exact, all splits of {a.num} + {b.num}"
        return Test(exact_p(a.values, b.values), exact_p(b.values, a.values), words)
    is_fixed = a.is_fixed or b.is_fixed
    if not is_testable(a, b):
        return Test(nan, nan, "none: a single trial, or no spread over trials")
    margin = tolerance if is_fixed else 0.0
    words = f"one-sample t, tolerance {tolerance} points" if is_fixed else "Welch"
    return Test(welch_p(a, b, margin=margin), welch_p(b, a, margin=margin), words, margin)


def _difference(a: Sample, b: Sample) -> str:
    width = half_width(a, b)
    return signed(a.mean - b.mean) + ("" if width is None else f" ± {width:.2f}")


def _find_side(
    claim: Claim, side: dict[str, Any], tables: Sequence[Comparable], published: Sequence[Published]
) -> Side | None:
    """The measured rows of a side, or else its published row with the most trials; None where there is neither."""
    rows = published_side(claim, side, published)
    if not rows:
        return None
    measured = measured_twins(rows[0], tables) if "recipe" in side else []
    measured = [one for one in measured if one.values(claim.metric)]
    return _measured_side(measured, claim.metric) if measured else _published_side(rows[0], claim.metric)


def _published_side(row: Published, metric: str) -> Side:
    mean, spread = row.metrics[metric], (row.spread or {}).get(metric)
    if row.samples:
        sample = of_values(row.samples, can_grow=False)
    elif spread is not None and row.trials:
        sample = Sample(mean, spread, row.trials)
    else:
        sample = fixed(mean)
    return Side(sample, f"{published_value(row, metric)}, published: {source_of(row)}", is_measured=False)


def _measured_side(rows: Sequence[Measured], metric: str) -> Side:
    """The trials of one backbone; or, of several that were pretrained alike, the mean of each as one trial."""
    if len({row.machine for row in rows}) > 1:
        raise MixedError("its measured rows mix engines, precisions, archs or BatchNorm statistics")
    if len({table_key(row.first) for row in rows}) > 1:
        raise MixedError("its measured rows mix settings or data")
    if len(rows) == 1:
        values, of = rows[0].values(metric), "run"
    else:
        values, of = [fmean(row.values(metric)) for row in rows], "backbone"
    sample = of_values(values)
    spread = "" if sample.spread is None else f" ± {sample.spread:.2f}"
    plural = "" if sample.num == 1 else "s"
    return Side(sample, f"{sample.mean:.2f}{spread} ({sample.num} {of}{plural})", is_measured=True)
