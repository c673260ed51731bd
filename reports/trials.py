"""Measured rows: records that differ in nothing but their trial become one row with mean and spread."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

import msgspec

from benchmarks.result import Metric, Result
from reports.significance import half_width, of_values, standard_deviation

_encoder = msgspec.json.Encoder(order="sorted")

# In the order in which a report shows them.
KINDS = ("", "smoke", "custom")


@dataclass(frozen=True)
class Measured:
    """The trials of one backbone under one protocol on the same data, engine and precision, one record per seed.

    Where batches were cut into parts, all trials had the same ones. `rerun_seeds` are the seeds that had older records;
    the newest counts.
    """

    trials: tuple[Result, ...]
    rerun_seeds: tuple[int, ...] = ()

    @property
    def first(self) -> Result:
        return self.trials[0]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(trial.seed for trial in self.trials)

    @property
    def is_random(self) -> bool:
        return is_random(self.first)

    @cached_property
    def machine(self) -> str:
        """What else must be the same for a fair comparison: arch, engine, precision and BatchNorm's statistics."""
        return _machine_key(self.first)

    def mean(self, metric: str) -> float | None:
        """The mean over trials; None where a trial lacks the metric."""
        values = self.values(metric)
        return fmean(values) if values else None

    def spread(self, metric: str) -> float | None:
        """The sample standard deviation over trials; None for a single one."""
        return standard_deviation(self.values(metric))

    def values(self, metric: str) -> list[float]:
        """One value a trial; empty where a trial lacks the metric."""
        if any(metric not in trial.metrics for trial in self.trials):
            return []
        return [trial.metrics[metric] for trial in self.trials]


@dataclass(frozen=True)
class Comparable:
    """Measured rows that may stand in one table: same task, protocol with every setting, and data."""

    rows: tuple[Measured, ...]

    @property
    def first(self) -> Result:
        return self.rows[0].first

    @property
    def trials(self) -> tuple[Result, ...]:
        return tuple(trial for row in self.rows for trial in row.trials)

    @cached_property
    def kind(self) -> str:
        """`custom`, `smoke`, or nothing for a protocol that published rows may share."""
        protocol = self.first.protocol
        name = protocol.id.split("/")[-1]
        if protocol.is_custom or name.startswith("custom"):
            return "custom"
        return "smoke" if name.startswith("smoke") else ""

    @cached_property
    def mixes_batch_norm(self) -> bool:
        """Whether rows differ in the images over which BatchNorm took its statistics in training."""
        return len({batch_norm_of(row.first) for row in self.rows}) > 1

    def random_row(self, row: Measured) -> Measured | None:
        """The random baseline of a row: same arch, engine, precision, BatchNorm statistics and seeds."""
        return None if row.is_random else self._random_rows.get((row.machine, row.seeds))

    @cached_property
    def _random_rows(self) -> dict[tuple[str, tuple[int, ...]], Measured]:
        return {(row.machine, row.seeds): row for row in self.rows if row.is_random}


@dataclass(frozen=True)
class Gain:
    """A row's difference to its random baseline in one metric, to a hundredth, and whether that is above random.

    `half_width` is that of the 95 % interval; None where a side has one trial.
    """

    metric: str
    points: float
    is_better: bool
    half_width: float | None = None


def gains_over_random(table: Comparable, row: Measured, metrics: Sequence[str]) -> tuple[Gain, ...]:
    """Mean minus the random row's mean for each metric that both have; empty without a random row to compare to.

    A custom table has none: its rows get no difference.
    """
    baseline = table.random_row(row)
    if baseline is None or table.kind == "custom":
        return ()
    gains = []
    for metric in metrics:
        values, random = row.values(metric), baseline.values(metric)
        if values and random:
            own, other = of_values(values), of_values(random)
            points = round(own.mean - other.mean, 2) + 0.0  # as the table shows it; + 0.0 turns -0.0 into 0.0
            is_better = points > 0 if higher_is_better(row, metric) else points < 0
            gains.append(Gain(metric, points, is_better, half_width(own, other)))
    return tuple(gains)


def higher_is_better(row: Measured, metric: str) -> bool:
    """As the record says of its metric."""
    return row.first.metric_info.get(metric, Metric(metric)).higher_is_better


def is_random(result: Result) -> bool:
    return result.backbone.provenance.get("format") == "random"


def batch_norm_of(result: Result) -> str:
    """Over which images BatchNorm took its statistics in training, as recorded; empty where nothing is.

    It tells how the batch was cut, whether over processes or over passes: that moves a detector's numbers.
    """
    return str(result.details.get("batch_norm", ""))


def backbone_key(result: Result) -> str:
    """What makes two records the same backbone: its values; for the random one its arch, as each seed draws anew."""
    return f"random {result.backbone.arch}" if is_random(result) else result.backbone.digest


def group_results(results: Sequence[Result]) -> tuple[Comparable, ...]:
    """All tables' measured rows: within a table the random baselines last, otherwise by name."""
    tables: dict[str, list[Result]] = {}
    for result in results:
        tables.setdefault(table_key(result), []).append(result)
    return tuple(Comparable(rows=_rows(members)) for _, members in sorted(tables.items()))


def _rows(results: Sequence[Result]) -> tuple[Measured, ...]:
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(backbone_key(result) + _machine_key(result), []).append(result)
    rows = [_one_per_seed(members) for members in groups.values()]
    return tuple(sorted(rows, key=_row_order))


def _row_order(row: Measured) -> tuple[bool, str, str, str]:
    return (row.is_random, row.first.backbone.name, backbone_key(row.first), row.machine)


def _one_per_seed(results: Sequence[Result]) -> Measured:
    newest: dict[int, Result] = {}
    for result in sorted(results, key=lambda one: one.created):
        newest[result.seed] = result
    counts = Counter(result.seed for result in results)
    rerun = tuple(sorted(seed for seed, count in counts.items() if count > 1))
    return Measured(trials=tuple(newest[seed] for seed in sorted(newest)), rerun_seeds=rerun)


def _as_key(values: list[Any]) -> str:
    return _encoder.encode(values).decode()


def table_key(result: Result) -> str:
    """What records of one table share: task, protocol with every setting, and data, whatever its folder is called."""
    protocol, data = result.protocol, result.data
    splits = {name: (split.images, split.objects, split.list_sha256) for name, split in data.splits.items()}
    key = [result.task, protocol.base, protocol.id, protocol.differs, protocol.settings]
    return _as_key([*key, data.classes, splits])


def _machine_key(result: Result) -> str:
    return _as_key([result.backbone.arch, result.engine, result.precision, batch_norm_of(result)])
