"""Training curves of pretraining, with the online kNN."""

from reports.pictures.figures import COLOURS, DASHES, MOST_LINES, clean, legend_below, not_shown, panels_of
from reports.pictures.material import Drawn, Material

TITLES = {"loss": "loss", "accuracy": "contrastive accuracy, %", "knn_top1": "online kNN top-1, %"}


def training_curves(material: Material) -> Drawn | None:
    """Loss, accuracy of telling positives and online kNN accuracy over pretraining."""
    names = [name for name in TITLES if any(name in epoch for log in material.logs for epoch in log.epochs)]
    if not names:
        return None
    figure, axes = panels_of(len(names))
    for axis, name in zip(axes, names, strict=True):
        for number, log in enumerate(material.logs[:MOST_LINES]):
            points = [(epoch["epoch"], epoch[name]) for epoch in log.epochs if name in epoch]
            style, colour = DASHES[number % len(DASHES)], COLOURS[number % len(COLOURS)]
            marker = "o" if len(points) == 1 else ""  # a single point makes no line
            xs, ys = [x for x, _ in points], [y for _, y in points]
            axis.plot(xs, ys, linestyle=style, color=colour, marker=marker, label=clean(log.name))
        axis.set_title(TITLES[name])
        axis.set_xlabel("epoch")
    legend_below(figure, axes)
    limits = not_shown(len(names), len(material.logs))
    return figure, f"Pretraining: loss, accuracy and, where it was asked for, the online kNN{limits}"
