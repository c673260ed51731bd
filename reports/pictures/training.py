"""Training curves of pretraining, with the online kNN."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from reports.pictures.figures import COLOURS, DASHES, MOST_LINES, clean, legend_below, not_shown, panels_of
from reports.pictures.material import Drawn, Material
from reports.pretraining_logs import PretrainingLog

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The title of each panel, and the values of metrics.jsonl that it shows, each with the name of its marker, if any.
PANELS = {
    "loss": {"loss": ""},
    "contrastive accuracy, %": {"accuracy": ""},
    "online kNN top-1, % (k ≤ 200, T 0.1)": {"knn_top1": "pooled features", "knn_embedding_top1": "embeddings"},
}
MARKS: dict[str, dict[str, Any]] = {
    "pooled features": {"marker": "o", "markersize": 4},
    "embeddings": {"marker": "s", "markersize": 5, "markerfacecolor": "white"},
}
MOST_MARKS = 12


def training_curves(material: Material) -> Drawn | None:
    """Loss, accuracy of telling positives and online kNN accuracy over pretraining."""
    panels = {title: curves for title in PANELS if (curves := _recorded(PANELS[title], material.logs))}
    if not panels:
        return None
    figure, axes = panels_of(len(panels))
    for axis, (title, curves) in zip(axes, panels.items(), strict=True):
        for number, log in enumerate(material.logs[:MOST_LINES]):
            for name, what in curves.items():
                _draw(axis, log, name, number, MARKS.get(what, {}))
        _name_marks(axis, [what for what in curves.values() if what])
        axis.set_title(title)
        axis.set_xlabel("epoch")
        axis.locator_params(axis="x", integer=True)
    legend_below(figure, axes)
    limits = not_shown(len(panels), len(material.logs))
    return figure, f"Pretraining: loss, accuracy and, where it was asked for, the online kNN{limits}"


def _recorded(curves: dict[str, str], logs: Sequence[PretrainingLog]) -> dict[str, str]:
    """Those of which a log has a value."""
    return {name: what for name, what in curves.items() if any(name in epoch for log in logs for epoch in log.epochs)}


def _draw(axis: "Axes", log: PretrainingLog, name: str, number: int, mark: dict[str, Any]) -> None:
    """The so-manieth run's values where it has them, joined."""
    points = [(epoch["epoch"], epoch[name]) for epoch in log.epochs if name in epoch]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    look: dict[str, Any] = {"linestyle": DASHES[number % len(DASHES)], "color": COLOURS[number % len(COLOURS)]}
    if mark:
        look |= {**mark, "markevery": -(-len(points) // MOST_MARKS) or 1}
    elif len(points) == 1:
        look["marker"] = "o"  # a single point makes no line
    axis.plot(xs, ys, label=clean(log.name), **look)


def _name_marks(axis: "Axes", names: Sequence[str]) -> None:
    """A legend in the panel of what its markers stand for."""
    from matplotlib.lines import Line2D

    if names:
        handles = [Line2D([], [], color="black", linestyle="none", label=name, **MARKS[name]) for name in names]
        axis.legend(handles=handles, fontsize=8)
