"""A report's pictures, each as SVG and PNG, the same bytes every time: readable in print and on dark pages."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from benchmarks.result import Metric
from reports.blocks import Picture
from reports.labels import backbone_labels
from reports.metrics import headlines_of, title_of
from reports.pretraining_logs import PretrainingLog
from reports.published import Published
from reports.ranks import rank_correlation
from reports.tables import SHORT_TASKS
from reports.trials import Comparable, Measured, backbone_key
from reports.twins import twins_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by colour-blind eyes; markers and dashes tell them apart in black and white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[str, ...] = ("-", "--", "-.", ":")
PANEL_INCHES = (4.2, 3.2)
MOST_PANELS, MOST_LINES = 6, 12
# Text stays text, also with a pair of $; ids are the same in every run; the sheet is white wherever it is shown.
SETTINGS: Any = {
    "svg.hashsalt": "mocobench",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
}


@dataclass(frozen=True)
class Material:
    """What there is to draw."""

    tables: Sequence[Comparable]
    published: Sequence[Published]
    logs: Sequence[PretrainingLog]
    labels: Mapping[str, str]


Drawing = Callable[[Material], tuple["Figure", str] | None]


def draw_pictures(
    tables: Sequence[Comparable], published: Sequence[Published], logs: Sequence[PretrainingLog], *, place: str = ""
) -> tuple[Picture, ...]:
    """Every picture that there is something for; `place` is the folder of their files as seen from the report."""
    import matplotlib as mpl

    labels = backbone_labels([trial for table in tables for trial in table.trials])
    material = Material(tables, published, logs, labels)
    pictures = []
    with mpl.rc_context(SETTINGS):
        for name, draw in DRAWINGS.items():
            drawn = draw(material)
            if drawn is not None:
                figure, caption = drawn
                svg, png = _saved(figure, "svg"), _saved(figure, "png")
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
    figure, axes = _panels(min(len(panels), MOST_PANELS))
    for axis, (linear, detection, metric, points) in zip(axes, panels, strict=False):
        for number, (key, (x, y)) in enumerate(points.items()):
            axis.plot(x, y, MARKERS[number % 7], color=COLOURS[number % 7], markersize=8)
            axis.annotate(material.labels[key], (x, y), xytext=(6, 5), textcoords="offset points", fontsize=8)
        published = [] if linear.kind else _published_points(material.published, linear, detection, metric)
        for x, y, label in published:
            axis.plot(x, y, "o", color="#777777", fillstyle="none")
            axis.annotate(label, (x, y), xytext=(6, -10), textcoords="offset points", fontsize=7, color="#555555")
        rank = rank_correlation([x for x, _ in points.values()], [y for _, y in points.values()])
        said = "no rank correlation: equal values" if rank is None else f"rank correlation {rank:+.2f}"
        axis.set_title(f"{said}, n = {len(points)}")
        axis.set_xlabel(f"linear top-1, {linear.first.data.name}, %")
        axis.set_ylabel(f"{SHORT_TASKS[detection.first.task]} {title_of(metric)}, {detection.first.data.name}")
        axis.margins(0.25)
    return figure, "Linear accuracy against detection, one mark a backbone; open grey marks are published"


def training_curves(material: Material) -> tuple["Figure", str] | None:
    """Loss, accuracy of telling positives and online kNN accuracy over pretraining."""
    titles = {"loss": "loss", "accuracy": "contrastive accuracy, %", "knn_top1": "online kNN top-1, %"}
    names = [name for name in titles if any(name in epoch for log in material.logs for epoch in log.epochs)]
    if not names:
        return None
    figure, axes = _panels(len(names))
    for axis, name in zip(axes, names, strict=True):
        for number, log in enumerate(material.logs[:MOST_LINES]):
            points = [(epoch["epoch"], epoch[name]) for epoch in log.epochs if name in epoch]
            xs, ys = [x for x, _ in points], [y for _, y in points]
            axis.plot(xs, ys, DASHES[number % 4], color=COLOURS[number % 7], label=_clean(log.name))
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
    figure, axes = _panels(min(len(panels), MOST_PANELS))
    for axis, (table, metric, rows) in zip(axes, panels, strict=False):
        for number, row in enumerate(rows[:MOST_LINES]):
            colour = COLOURS[number % 7]
            values = row.values(metric)
            axis.plot([number] * len(values), values, MARKERS[number % 7], color=colour, alpha=0.8)
            axis.hlines(fmean(values), number - 0.25, number + 0.25, color=colour)
            for twin in twins_of(row.first, material.published, protocol=table.first.protocol.id)[:1]:
                mean, spread = twin.metrics.get(metric), (twin.spread or {}).get(metric, 0.0)
                if mean is not None and not table.kind:
                    axis.fill_between([number - 0.4, number + 0.4], mean - spread, mean + spread, color="#bbbbbb")
                    axis.hlines(mean, number - 0.4, number + 0.4, color="#555555", linestyle="--")
        names = [material.labels[backbone_key(row.first)] for row in rows[:MOST_LINES]]
        axis.set_xticks(range(len(names)), [_clean(name) for name in names], rotation=20, ha="right")
        axis.set_ylabel(f"{SHORT_TASKS.get(table.first.task, table.first.task)} {title_of(metric)}")
        axis.set_title(table.first.protocol.id)
        axis.margins(x=0.2)
    return figure, "Trials: a mark for each, a line at their mean; grey: published mean ± standard deviation"


def cost_against_accuracy(material: Material) -> tuple["Figure", str] | None:
    """What a run takes against what it gives, a panel for each table."""
    panels = [(table, metric) for table in material.tables if (metric := _headline(table))]
    if not panels:
        return None
    figure, axes = _panels(min(len(panels), MOST_PANELS))
    for axis, (table, metric) in zip(axes, panels, strict=False):
        for number, row in enumerate(row for row in table.rows[:MOST_LINES] if row.values(metric)):
            seconds, value = fmean(trial.wall_seconds for trial in row.trials), fmean(row.values(metric))
            label = _clean(_label(material, row, table))
            axis.plot(seconds, value, MARKERS[number % 7], color=COLOURS[number % 7], label=label)
        info = table.first.metric_info.get(metric, Metric(title_of(metric)))
        axis.set_xlabel("wall seconds of a run")
        axis.set_ylabel(f"{title_of(metric)}, {info.unit}")
        axis.set_title(f"{table.first.protocol.id}, {_clean(table.first.data.name)}", fontsize=8)
        axis.legend(fontsize=7)
        axis.margins(0.25)
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
    return [(x.metrics["top1"], y.metrics[metric], f"{y.method} {y.case}".strip()) for x, y in shared]


def _label(material: Material, row: Measured, table: Comparable) -> str:
    label = material.labels[backbone_key(row.first)]
    is_mixed = len({other.machine for other in table.rows}) > 1
    return f"{label}, {row.first.engine.get('name')}, {row.first.precision}" if is_mixed else label


def _metrics(table: Comparable) -> set[str]:
    return {name for trial in table.trials for name in trial.metrics}


def _headline(table: Comparable) -> str:
    return next(iter(headlines_of(table.first.task, _metrics(table))), "")


def _panels(number: int) -> tuple["Figure", list["Axes"]]:
    """A figure of so many panels, at most two side by side: three would be too small on a page."""
    from matplotlib.figure import Figure

    columns = min(number, 2)
    rows = -(-number // columns)
    figure = Figure(figsize=(PANEL_INCHES[0] * columns, PANEL_INCHES[1] * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in axes[number:]:
        spare.remove()
    return figure, axes[:number]


def _clean(text: str) -> str:
    """Text for a legend: on one line, and not begun with _, which hides it there."""
    shown = "".join(char if char.isprintable() else " " for char in text)
    return f" {shown}" if shown.startswith("_") else shown


def _saved(figure: "Figure", format: str) -> bytes:
    picture = io.BytesIO()
    metadata = {"Date": None} if format == "svg" else {"Software": None}
    figure.savefig(picture, format=format, dpi=110, facecolor="white", metadata=metadata)
    return picture.getvalue()
