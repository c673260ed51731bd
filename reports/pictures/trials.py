"""Every trial's headline value, with the published mean and its spread as a band."""

from statistics import fmean
from typing import TYPE_CHECKING

from reports.metrics import title_of
from reports.pictures.figures import MOST_LINES, MOST_PANELS, PUBLISHED_BAND, PUBLISHED_INK, clean, not_shown, panels_of
from reports.pictures.material import WITHOUT_RANDOM, Drawn, Material, compared, headline
from reports.published import Published
from reports.tables import SHORT_TASKS
from reports.trials import Comparable, Measured
from reports.twins import twins_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def trials(material: Material) -> Drawn | None:
    """A panel for each table in which a row has several trials, a line for each row."""
    panels = []
    for table in material.tables:
        rows = compared(table, headline(table))
        if any(len(row.trials) > 1 for row in rows):
            panels.append((table, rows))
    if not panels:
        return None
    figure, axes = panels_of(min(len(panels), MOST_PANELS))
    for axis, (table, rows) in zip(axes, panels, strict=False):
        _draw_rows(axis, table, rows[:MOST_LINES], material)
    limits = f"; {WITHOUT_RANDOM}{not_shown(len(panels), max(len(rows) for _, rows in panels))}"
    return figure, f"Trials: a mark for each, a line at their mean; grey: published mean ± standard deviation{limits}"


def _draw_rows(axis: "Axes", table: Comparable, rows: list[Measured], material: Material) -> None:
    metric, task = headline(table), table.first.task
    for number, row in enumerate(rows):
        _draw_published(axis, number, metric, [] if table.kind else _twins(row, table, metric, material))
        values, look = row.values(metric), material.look(row)
        axis.plot(values, [number] * len(values), alpha=0.7, markersize=5, **look)
        axis.vlines(fmean(values), number - 0.3, number + 0.3, color=look["color"])
    axis.set_yticks(range(len(rows)), [material.name(row) for row in rows], fontsize=8)
    axis.set_ylim(len(rows) - 0.4, -0.6)  # the first row on top, as in the table
    axis.set_xlabel(f"{clean(SHORT_TASKS.get(task, task))} {title_of(metric)}")
    axis.set_title(clean(table.first.protocol.id))


def _twins(row: Measured, table: Comparable, metric: str, material: Material) -> list[Published]:
    twins = twins_of(row.first, material.published, protocol=table.first.protocol.id)
    return [twin for twin in twins if metric in twin.metrics]


def _draw_published(axis: "Axes", place: int, metric: str, twins: list[Published]) -> None:
    for twin in twins[:1]:
        mean, spread = twin.metrics[metric], (twin.spread or {}).get(metric, 0.0)
        low, high = place - 0.4, place + 0.4
        axis.fill_betweenx([low, high], mean - spread, mean + spread, color=PUBLISHED_BAND, linewidth=0)
        axis.vlines(mean, low, high, color=PUBLISHED_INK, linestyle="--", linewidth=1)
