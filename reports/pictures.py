"""A report's pictures: each is drawn where there is something to draw, as SVG and as PNG."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from benchmarks.result import Metric
from reports.blocks import Picture
from reports.cells import signed
from reports.document import in_order
from reports.figures import (
    COLOURS,
    DASHES,
    MARKERS,
    MOST_LINES,
    MOST_PANELS,
    SETTINGS,
    clean,
    legend_below,
    panels_of,
    saved,
)
from reports.labels import backbone_labels
from reports.metrics import headlines_of, title_of
from reports.pretraining_logs import PretrainingLog
from reports.published import Published
from reports.ranks import rank_correlation
from reports.tables import SHORT_TASKS
from reports.trials import Comparable, backbone_key
from reports.twins import twins_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Material:
    """What there is to draw."""

    tables: Sequence[Comparable]
    published: Sequence[Published]
    logs: Sequence[PretrainingLog]
    labels: Mapping[str, str]

    def look(self, key: str) -> dict[str, Any]:
        """A backbone's colour, marker and name, the same in every panel."""
        number = list(self.labels).index(key)
        name = clean(self.labels[key])
        return {"color": COLOURS[number % 7], "marker": MARKERS[number % 7], "linestyle": "none", "label": name}


Drawing = Callable[[Material], tuple["Figure", str] | None]


def draw_pictures(
    tables: Sequence[Comparable],
    published: Sequence[Published],
    logs: Sequence[PretrainingLog],
    *,
    place: str = "",
    with_png: bool = True,
) -> tuple[Picture, ...]:
    """Every picture that there is something for; `place` is the folder of their files as seen from the report."""
    import matplotlib as mpl

    labels = backbone_labels([trial for table in tables for trial in table.trials])
    material = Material(in_order(tables), published, logs, labels)
    pictures = []
    with mpl.rc_context(SETTINGS):
        for name, draw in DRAWINGS.items():
            drawn = draw(material)
            if drawn is not None:
                figure, caption = drawn
                svg, png = saved(figure, "svg"), saved(figure, "png") if with_png else b""
                pictures.append(Picture(name, caption, svg, png, f"{place}{'/' if place else ''}{name}.svg"))
    return tuple(pictures)


def linear_against_detection(material: Material) -> tuple["Figure", str] | None:
    """Linear accuracy against detection AP over backbones: the paper's finding is that they are not monotone."""
    panels = []
    for linear in (table for table in material.tables if table.first.task == "imagenet-linear"):
        for detection in (table for table in material.tables if table.first.task.endswith("-detection")):
            for metric in headlines_of(detection.first.task, _metrics(detection)):
                points = _shared_points(linear, "top1", detection, metric)
                if len(points) > 1 and linear.kind == detection.kind:
                    panels.append((linear, detection, metric, points))
    if not panels:
        return None
    figure, axes = panels_of(min(len(panels), MOST_PANELS))
    for axis, (linear, detection, metric, points) in zip(axes, panels, strict=False):
        for key, (x, y) in points.items():
            axis.plot(x, y, markersize=8, **material.look(key))
        published = [] if linear.kind else _published_points(material.published, linear, detection, metric)
        for x, y, label in published:
            axis.plot(x, y, "o", color="#777777", fillstyle="none")
            axis.annotate(label, (x, y), xytext=(5, -9), textcoords="offset points", fontsize=7, color="#555555")
        axis.set_title(_rank_title([x for x, _ in points.values()], [y for _, y in points.values()]))
        axis.set_xlabel(f"linear top-1, {clean(linear.first.data.name)}, %")
        axis.set_ylabel(f"{SHORT_TASKS[detection.first.task]} {title_of(metric)}, {clean(detection.first.data.name)}")
        axis.margins(0.25)
    legend_below(figure, axes)
    return figure, "Linear accuracy against detection, one mark a backbone; open grey marks are published"


def training_curves(material: Material) -> tuple["Figure", str] | None:
    """Loss, accuracy of telling positives and online kNN accuracy over pretraining."""
    titles = {"loss": "loss", "accuracy": "contrastive accuracy, %", "knn_top1": "online kNN top-1, %"}
    names = [name for name in titles if any(name in epoch for log in material.logs for epoch in log.epochs)]
    if not names:
        return None
    figure, axes = panels_of(len(names))
    for axis, name in zip(axes, names, strict=True):
        for number, log in enumerate(material.logs[:MOST_LINES]):
            points = [(epoch["epoch"], epoch[name]) for epoch in log.epochs if name in epoch]
            xs, ys = [x for x, _ in points], [y for _, y in points]
            axis.plot(xs, ys, DASHES[number % 4], color=COLOURS[number % 7], label=clean(log.name))
        axis.set_title(titles[name])
        axis.set_xlabel("epoch")
    axes[0].legend(fontsize=8)
    return figure, "Pretraining: loss, accuracy and, where it was asked for, the online kNN"


def trials(material: Material) -> tuple["Figure", str] | None:
    """Every trial's headline value, with the published mean and its spread as a band."""
    panels = []
    for table in material.tables:
        metric = _headline(table)
        rows = [row for row in table.rows if metric and row.values(metric)]
        if metric and any(len(row.trials) > 1 for row in rows):
            panels.append((table, metric, rows))
    if not panels:
        return None
    figure, axes = panels_of(min(len(panels), MOST_PANELS))
    for axis, (table, metric, rows) in zip(axes, panels, strict=False):
        for number, row in enumerate(rows[:MOST_LINES]):
            values, look = row.values(metric), material.look(backbone_key(row.first))
            axis.plot([number] * len(values), values, alpha=0.8, **look)
            axis.hlines(fmean(values), number - 0.25, number + 0.25, color=look["color"])
            for twin in twins_of(row.first, material.published, protocol=table.first.protocol.id)[:1]:
                mean, spread = twin.metrics.get(metric), (twin.spread or {}).get(metric, 0.0)
                if mean is not None and not table.kind:
                    axis.fill_between([number - 0.4, number + 0.4], mean - spread, mean + spread, color="#bbbbbb")
                    axis.hlines(mean, number - 0.4, number + 0.4, color="#555555", linestyle="--")
        names = [material.labels[backbone_key(row.first)] for row in rows[:MOST_LINES]]
        axis.set_xticks(range(len(names)), [clean(name) for name in names], rotation=20, ha="right")
        axis.set_ylabel(f"{SHORT_TASKS.get(table.first.task, table.first.task)} {title_of(metric)}")
        axis.set_title(table.first.protocol.id)
        axis.margins(x=0.2)
    return figure, "Trials: a mark for each, a line at their mean; grey: published mean ± standard deviation"


def cost_against_accuracy(material: Material) -> tuple["Figure", str] | None:
    """What a run takes against what it gives, a panel for each table."""
    panels = [(table, metric) for table in material.tables if (metric := _headline(table))]
    if not panels:
        return None
    figure, axes = panels_of(min(len(panels), MOST_PANELS))
    for axis, (table, metric) in zip(axes, panels, strict=False):
        for row in [row for row in table.rows if row.values(metric)][:MOST_LINES]:
            seconds, value = fmean(trial.wall_seconds for trial in row.trials), fmean(row.values(metric))
            axis.plot(seconds, value, **material.look(backbone_key(row.first)))
        info = table.first.metric_info.get(metric, Metric(title_of(metric)))
        axis.set_xlabel("wall seconds of a run")
        axis.set_ylabel(f"{title_of(metric)}, {info.unit}")
        axis.set_title(f"{table.first.protocol.id}, {clean(table.first.data.name)}", fontsize=8)
        axis.margins(0.25)
    legend_below(figure, axes)
    return figure, "Cost against accuracy: the mean wall time of a run and its headline metric"


DRAWINGS: dict[str, Drawing] = {
    "linear-against-detection": linear_against_detection,
    "training-curves": training_curves,
    "trials": trials,
    "cost-against-accuracy": cost_against_accuracy,
}


def _shared_points(
    linear: Comparable, x_metric: str, detection: Comparable, y_metric: str
) -> dict[str, tuple[float, float]]:
    """(x, y) of each backbone that both tables have in one row each."""
    xs, ys = _means(linear, x_metric), _means(detection, y_metric)
    return {key: (xs[key], ys[key]) for key in xs if key in ys}


def _means(table: Comparable, metric: str) -> dict[str, float]:
    rows = [(backbone_key(row.first), row.mean(metric)) for row in table.rows]
    keys = [key for key, _ in rows]
    return {key: mean for key, mean in rows if mean is not None and keys.count(key) == 1}


def _published_points(
    published: Sequence[Published], linear: Comparable, detection: Comparable, metric: str
) -> list[tuple[float, float, str]]:
    """(linear, detection, name) of published rows that repeat one recipe under both protocols."""
    by_protocol = [
        {row.recipe: row for row in published if row.recipe and row.protocol == table.first.protocol.id}
        for table in (linear, detection)
    ]
    xs, ys = by_protocol
    shared = [(xs[recipe], ys[recipe]) for recipe in xs if recipe in ys and metric in ys[recipe].metrics]
    return [(x.metrics["top1"], y.metrics[metric], y.case or y.method) for x, y in shared]


def _rank_title(xs: Sequence[float], ys: Sequence[float]) -> str:
    if len(xs) < 3:
        return f"n = {len(xs)}: too few to rank"
    rank = rank_correlation(xs, ys)
    said = "no rank correlation: equal values" if rank is None else f"rank correlation {signed(rank)}"
    return f"{said}, n = {len(xs)}"


def _metrics(table: Comparable) -> set[str]:
    return {name for trial in table.trials for name in trial.metrics}


def _headline(table: Comparable) -> str:
    return next(iter(headlines_of(table.first.task, _metrics(table))), "")
