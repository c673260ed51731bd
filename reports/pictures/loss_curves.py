"""Training curves of result records as one figure: a panel for each loss, a line for each run."""

import io
from collections.abc import Sequence

from benchmarks.result import RecordError, Result
from reports.pictures.figures import clean

PANEL_INCHES = (3.4, 2.6)


def draw_curves(results: Sequence[Result]) -> bytes:
    """The loss curves that detection records keep, as a PNG; the x axis counts iterations.

    Raises:
        RecordError: no record has a curve.
    """
    from matplotlib.figure import Figure

    with_curve = [result for result in results if result.details.get("loss_curve")]
    if not with_curve:
        raise RecordError(
            f"--curves: expected a record with a loss curve, found none among {len(results)}; "
            "run a detection task first"
        )
    names = _losses(with_curve)
    width, height = PANEL_INCHES
    figure = Figure(figsize=(width * len(names), height + 0.2 * len(with_curve)), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for name, panel in zip(names, panels, strict=True):
        panel.set_title(clean(name), fontsize=9)
        panel.set_xlabel("iteration", fontsize=8)
        panel.tick_params(labelsize=8)
        panel.grid(alpha=0.3)
        for result in with_curve:
            points = [point for point in result.details["loss_curve"] if name in point]
            panel.plot([p["iteration"] for p in points], [p[name] for p in points], linewidth=1.2, label=_label(result))
        panel.set_ylim(bottom=0)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", frameon=False, fontsize=8)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return picture.getvalue()


def _losses(results: Sequence[Result]) -> list[str]:
    """The losses of all curves, the total first."""
    found = {name for result in results for point in result.details["loss_curve"] for name in point}
    return sorted(found - {"iteration", "learning_rate"}, key=lambda name: (name != "total_loss", name))


def _label(result: Result) -> str:
    return (
        f"{result.task}, {result.data.name}, {result.backbone.name}: {result.engine['name']}, "
        f"{result.precision}, seed {result.seed}"
    )
