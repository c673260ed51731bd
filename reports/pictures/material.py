"""What there is to draw, and which backbones a picture compares."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reports.metrics import headlines_of
from reports.pictures.figures import clean, look_of
from reports.pretraining_logs import PretrainingLog
from reports.published import Published
from reports.trials import Comparable, Measured, backbone_key

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A drawing and its caption.
Drawn = tuple["Figure", str]

MANY = 3
WITHOUT_RANDOM = "random backbones are drawn only where fewer than three others are"


@dataclass(frozen=True)
class Material:
    """The tables in a report's order, the published rows, the logs of pretraining, and every backbone's label."""

    tables: Sequence[Comparable]
    published: Sequence[Published]
    logs: Sequence[PretrainingLog]
    labels: Mapping[str, str]

    def name(self, row: Measured) -> str:
        """A row's backbone as a label."""
        return clean(self.labels[backbone_key(row.first)])

    def look(self, row: Measured) -> dict[str, Any]:
        """The colour, marker and name of a row's backbone, the same in every panel."""
        number = list(self.labels).index(backbone_key(row.first))
        return {**look_of(number), "label": self.name(row)}


def compared(table: Comparable, metric: str) -> list[Measured]:
    """The rows with this metric. Random ones only beside fewer than three others: far below, they press the rest
    of a picture into one corner."""
    rows = [row for row in table.rows if row.values(metric)]
    trained = [row for row in rows if not row.is_random]
    return trained if len(trained) >= MANY else rows


def metrics_in(table: Comparable) -> set[str]:
    """Every metric of a table's records."""
    return {name for trial in table.trials for name in trial.metrics}


def headline(table: Comparable) -> str:
    """The metric that stands for a table; empty where it has none."""
    return next(iter(headlines_of(table.first.task, metrics_in(table))), "")
