"""Linear accuracy against detection AP over backbones: the paper's finding is that they are not monotone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reports.cells import signed
from reports.metrics import headlines_of, title_of
from reports.pictures.figures import MOST_LINES, MOST_PANELS, PUBLISHED_INK, clean, legend_below, not_shown, panels_of
from reports.pictures.material import WITHOUT_RANDOM, Drawn, Material, compared, metrics_in
from reports.published import Published
from reports.ranks import rank_correlation
from reports.tables import SHORT_TASKS
from reports.trials import Comparable, Measured, backbone_key

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINEAR_METRIC = "top1"


@dataclass(frozen=True)
class Panel:
    """A linear and a detection table, a metric of the latter, and the points that both have: row, linear, detection."""

    linear: Comparable
    detection: Comparable
    metric: str
    points: Sequence[tuple[Measured, float, float]]


def linear_against_detection(material: Material) -> Drawn | None:
    """One mark for each backbone; the published rows of the very protocols as open grey rings."""
    panels = _panels(material.tables)
    if not panels:
        return None
    figure, axes = panels_of(min(len(panels), MOST_PANELS))
    for axis, panel in zip(axes, panels, strict=False):
        if not panel.linear.kind:
            _draw_published(axis, _published_points(material.published, panel))
        for row, x, y in panel.points[:MOST_LINES]:
            axis.plot(x, y, markersize=7, **material.look(row))
        axis.set_title(_rank_title([x for _, x, _ in panel.points], [y for _, _, y in panel.points]))
        axis.set_xlabel(f"linear {title_of(LINEAR_METRIC)}, {clean(panel.linear.first.data.name)}, %")
        task, data = panel.detection.first.task, clean(panel.detection.first.data.name)
        axis.set_ylabel(f"{clean(SHORT_TASKS.get(task, task))} {title_of(panel.metric)}, {data}")
        axis.margins(0.15)
    legend_below(figure, axes)
    limits = f"; {WITHOUT_RANDOM}{not_shown(len(panels), max(len(panel.points) for panel in panels))}"
    return figure, f"Linear accuracy against detection, one mark a backbone; open grey rings are published{limits}"


def _panels(tables: Sequence[Comparable]) -> list[Panel]:
    """Every pair of tables of like kind that share two backbones or more."""
    panels = []
    for linear in (table for table in tables if table.first.task == "imagenet-linear"):
        for detection in (table for table in tables if table.first.task.endswith("-detection")):
            for metric in headlines_of(detection.first.task, metrics_in(detection)):
                points = _shared_points(linear, detection, metric)
                if len(points) > 1 and linear.kind == detection.kind:
                    panels.append(Panel(linear, detection, metric, points))
    return panels


def _shared_points(linear: Comparable, detection: Comparable, metric: str) -> list[tuple[Measured, float, float]]:
    """Row, x and y of each backbone that both tables have in one row each."""
    xs, ys = _only_rows(linear, LINEAR_METRIC), _only_rows(detection, metric)
    pairs = [(xs[key], ys[key]) for key in xs if key in ys]
    means = ((x, x.mean(LINEAR_METRIC), y.mean(metric)) for x, y in pairs)
    return [(row, x, y) for row, x, y in means if x is not None and y is not None]


def _only_rows(table: Comparable, metric: str) -> dict[str, Measured]:
    """By backbone, its row, where it has just one."""
    rows = compared(table, metric)
    keys = [backbone_key(row.first) for row in rows]
    return {key: row for key, row in zip(keys, rows, strict=True) if keys.count(key) == 1}


def _published_points(published: Sequence[Published], panel: Panel) -> list[tuple[float, float, str]]:
    """(linear, detection, name) of published rows of one recipe under both protocols, by their linear value."""
    xs, ys = (
        {row.recipe: row for row in published if row.recipe and row.protocol == table.first.protocol.id}
        for table in (panel.linear, panel.detection)
    )
    shared = [(xs[recipe], ys[recipe]) for recipe in xs if recipe in ys and panel.metric in ys[recipe].metrics]
    return sorted((x.metrics[LINEAR_METRIC], y.metrics[panel.metric], y.case or y.method) for x, y in shared)


def _draw_published(axis: "Axes", points: Sequence[tuple[float, float, str]]) -> None:
    """Rings, their names above and below in turn, since neighbours are often close."""
    look: Any = {"textcoords": "offset points", "ha": "center", "va": "center", "fontsize": 7.5, "color": PUBLISHED_INK}
    for number, (x, y, name) in enumerate(points):
        axis.plot(x, y, "o", color=PUBLISHED_INK, fillstyle="none", markersize=11)
        axis.annotate(name, (x, y), xytext=(0, 12 if number % 2 else -12), **look)


def _rank_title(xs: Sequence[float], ys: Sequence[float]) -> str:
    if len(xs) < 3:
        return f"n = {len(xs)}: too few to rank"
    rank = rank_correlation(xs, ys)
    said = "no rank correlation: equal values" if rank is None else f"rank correlation {signed(rank)}"
    return f"{said}, n = {len(xs)}"
