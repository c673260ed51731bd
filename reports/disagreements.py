"""Published numbers on which two sources disagree: the same pretraining and protocol, printed differently."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import combinations

from reports.published import Pretraining, Published

# Half of the last digit that tables print: what two sources may differ by when they round alike.
ROUNDING = 0.05 + 1e-9


@dataclass(frozen=True)
class Disagreement:
    """Two rows of different sources and the metrics on which their printed values differ."""

    first: Published
    second: Published
    metrics: tuple[str, ...]


def find_disagreements(rows: Sequence[Published]) -> tuple[Disagreement, ...]:
    """All pairs of sources that print different values for what, as far as they say, is the same."""
    groups: dict[tuple[str, str], list[Published]] = {}
    for row in rows:
        groups.setdefault((row.protocol, row.method), []).append(row)
    pairs = (pair for members in groups.values() for pair in combinations(members, 2))
    found = (Disagreement(one, other, _differing(one, other)) for one, other in pairs if _is_same_work(one, other))
    return tuple(disagreement for disagreement in found if disagreement.metrics)


def _is_same_work(one: Published, other: Published) -> bool:
    """Another source, equal epochs, and nothing that both say and say differently."""
    if one.source == other.source or one.pretraining.epochs != other.pretraining.epochs:
        return False
    return all(_agree(field.name, one.pretraining, other.pretraining) for field in fields(Pretraining))


def _agree(name: str, one: Pretraining, other: Pretraining) -> bool:
    unsaid = "1x" if name == "width" else None  # a ResNet-50's width is said where it is not 1x
    values = [unsaid if getattr(side, name) is None else getattr(side, name) for side in (one, other)]
    return None in values or values[0] == values[1]


def _differing(one: Published, other: Published) -> tuple[str, ...]:
    shared = [name for name in one.metrics if name in other.metrics]
    return tuple(name for name in shared if abs(one.metrics[name] - other.metrics[name]) > ROUNDING)
