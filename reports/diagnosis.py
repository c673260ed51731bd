"""Why a measured row is off its published twin: likely causes, each read off a recorded fact.

A rule takes the row and its twin and returns what it found in words, or nothing. A row of the twin's own protocol is
off when it lies outside the twin's band; a custom row is never compared, and its causes are what makes it custom.
"""

import re
from collections.abc import Sequence
from math import isfinite
from statistics import fmean

from benchmarks.result import Result
from reports.cells import published_value
from reports.conventions import departures, expected_convention
from reports.metrics import columns_of, headlines_of, title_of
from reports.published import Published
from reports.trials import Comparable, Measured, batch_norm_of
from reports.twins import twins_of

# A band is so many printed standard deviations wide on either side, or this many points where no spread is printed.
BAND_SPREADS = 3.0
DEFAULT_BAND = 0.5

SCHEDULE = re.compile(r"^(epochs|iterations|decay_\w+|warmup_\w+|batch_size|learning_rate)\b")
NORMALISATION = re.compile(r"^(norm|extra_norm|norm_in_heads|precise_bn_\w+)\b")
DATA = re.compile(r"^(\w+ images|\w+_splits|classes)\b")
STILL_FALLING = 0.05


def diagnose(table: Comparable, row: Measured, published: Sequence[Published]) -> str:
    """In words: in which metrics and how far a row is from the twin it should meet, and the likely causes.

    Nothing where it meets its twin, the published row with the most trials, in every metric that both have.
    """
    twins = twins_of(row.first, published, protocol=table.first.protocol.base)
    twin = next((twin for twin in twins if _shared_metrics(row, twin)), None)
    if twin is None:
        return ""
    metrics = _shared_metrics(row, twin)
    source = f"{twin.source.short}, {twin.table}"
    if table.kind == "custom":
        return f"not run as {source}: {published_value(twin, metrics[0])}: {_causes(row, twin, metrics[0])}"
    off = [name for name in metrics if abs(_distance(row, twin, name)) > band(twin, name)]
    if not off:
        return ""
    return f"{source}: {'; '.join(_how_far(row, twin, name) for name in off)}: {_causes(row, twin, off[0])}"


def _shared_metrics(row: Measured, twin: Published) -> list[str]:
    """What tables show of both, the metrics that stand for the task first."""
    task, present = twin.task, {name for name in twin.metrics if row.values(name)}
    return list(dict.fromkeys((*headlines_of(task, present), *columns_of(task, present))))


def _how_far(row: Measured, twin: Published, metric: str) -> str:
    return (
        f"{title_of(metric)} {_distance(row, twin, metric):+.2f} points from {published_value(twin, metric)}, "
        f"band ± {band(twin, metric):.1f}"
    )


def _causes(row: Measured, twin: Published, metric: str) -> str:
    causes = [cause for rule in RULES if (cause := rule(row, twin, metric))]
    return "; ".join(causes) or "nothing in the record tells why"


def band(twin: Published, metric: str) -> float:
    """How far from a published value a repetition may lie, in points."""
    spread = (twin.spread or {}).get(metric)
    return DEFAULT_BAND if spread is None else BAND_SPREADS * spread


def _distance(row: Measured, twin: Published, metric: str) -> float:
    mean = row.mean(metric)
    assert mean is not None, "rows without the metric are not diagnosed"
    return mean - twin.metrics[metric]


def scaled_schedule(row: Measured, twin: Published, metric: str) -> str:
    changed = _differing(row, SCHEDULE)
    plan = row.first.details.get("plan")
    return f"schedule or batch scaled ({', '.join([*changed, *([str(plan)] if plan else [])])})" if changed else ""


def other_input(row: Measured, twin: Published, metric: str) -> str:
    """A channel order, mean or std that the twin's weights were not trained with."""
    given = row.first.backbone.input
    wrong = departures(given, expected_convention(given, twin))
    return f"input convention: {', '.join(wrong)}" if wrong else ""


def other_stride(row: Measured, twin: Published, metric: str) -> str:
    """Stride in other convolutions than where weights of that input convention have it."""
    given = row.first.backbone.input
    in_1x1 = given.get("stride_in_1x1", False)
    if in_1x1 == expected_convention(given, twin).stride_in_1x1:
        return ""
    return f"stride in the {'1x1' if in_1x1 else '3x3'} convolutions, not in the {'3x3' if in_1x1 else '1x1'}"


def other_batch_norm(row: Measured, twin: Published, metric: str) -> str:
    """Changed norm settings, or statistics over parts of a batch."""
    found = _differing(row, NORMALISATION)
    recorded = batch_norm_of(row.first)
    found += [recorded] if recorded.startswith("over parts") else []
    return f"BN statistics: {', '.join(found)}" if found else ""


def what_is_skipped(task: str) -> str:
    """What a run of the task lists as skipped."""
    return "annotations" if task.endswith("-detection") else "images"


def subset_of_data(row: Measured, twin: Published, metric: str) -> str:
    found = _differing(row, DATA)
    num_skipped = len(row.first.data.skipped)
    found += [f"{num_skipped} {what_is_skipped(row.first.task)} skipped"] if num_skipped else []
    return f"other data, or a subset of it: {', '.join(found)}" if found else ""


def low_precision(row: Measured, twin: Published, metric: str) -> str:
    return f"precision {row.first.precision}, not fp32" if row.first.precision != "fp32" else ""


def unconverged_loss(row: Measured, twin: Published, metric: str) -> str:
    """The loss is not finite at the end, or its last tenth is well below the tenth before."""
    for trial in row.trials:
        losses = _losses(trial.details.get("loss_curve", [])) or _epoch_losses(trial)
        tenth = len(losses) // 10
        if losses and not isfinite(losses[-1]):
            return f"seed {trial.seed}: the loss ends as {losses[-1]}"
        if tenth and fmean(losses[-tenth:]) < (1 - STILL_FALLING) * fmean(losses[-2 * tenth : -tenth]):
            return f"seed {trial.seed}: the loss is still falling at the end"
    return ""


def best_epoch(row: Measured, twin: Published, metric: str) -> str:
    """The last epoch is below the twin, the best one is not: the published number may be a best epoch."""
    bests = [trial.details.get("best_epoch", {}).get(metric) for trial in row.trials]
    known = [float(best) for best in bests if isinstance(best, int | float)]
    if len(known) < len(row.trials) or _distance(row, twin, metric) > 0:
        return ""
    mean = fmean(known)
    is_met = abs(mean - twin.metrics[metric]) <= band(twin, metric)
    return (
        f"the best epoch, chosen on the test set, reads {mean:.2f}: the last epoch is reported here" if is_met else ""
    )


def too_few_trials(row: Measured, twin: Published, metric: str) -> str:
    wanted = twin.trials or 2
    return f"{len(row.trials)} of {wanted} trials" if len(row.trials) < wanted else ""


RULES = (
    scaled_schedule,
    other_input,
    other_stride,
    other_batch_norm,
    subset_of_data,
    low_precision,
    unconverged_loss,
    best_epoch,
    too_few_trials,
)


def _differing(row: Measured, pattern: re.Pattern[str]) -> list[str]:
    return [change for change in row.first.protocol.differs if pattern.match(change)]


def _epoch_losses(trial: Result) -> list[float]:
    return [epoch.loss for epoch in trial.details.get("curve", []) if epoch.loss is not None]


def _losses(curve: Sequence[dict[str, float]]) -> list[float]:
    names = [name for name in ("total_loss", "loss") if curve and name in curve[0]]
    return [float(point[names[0]]) for point in curve if names and names[0] in point]
