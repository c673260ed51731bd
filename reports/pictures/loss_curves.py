"""Training curves of result records as one figure: a panel for each loss, a line for each run."""

from collections.abc import Sequence

from benchmarks.result import RecordError, Result
from reports.pictures.figures import SETTINGS, clean, saved

PANEL_INCHES = (3.4, 2.6)


def draw_curves(results: Sequence[Result]) -> bytes:
    """The loss curves that detection records keep, as a PNG; the x axis counts iterations.

    Raises:
        RecordError: no record has a curve.
    """
    import matplotlib as mpl

    with_curve = [result for result in results if result.details.get("loss_curve")]
    if not with_curve:
        raise RecordError(
            f"--curves: expected a record with a loss curve, found none among {len(results)}; "
            "run a detection task first"
        )
    with mpl.rc_context(SETTINGS):
        return _draw(with_curve)


def _draw(results: Sequence[Result]) -> bytes:
    from matplotlib.figure import Figure

    names = _losses(results)
    width, height = PANEL_INCHES
    figure = Figure(figsize=(width * len(names), height + 0.2 * len(results)), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for name, panel in zip(names, panels, strict=True):
        panel.set_title(clean(name))
        panel.set_xlabel("iteration", fontsize=8)
        panel.tick_params(labelsize=8)
        for result in results:
            points = [point for point in result.details["loss_curve"] if name in point]
            panel.plot([p["iteration"] for p in points], [p[name] for p in points], linewidth=1.2, label=_label(result))
        panel.set_ylim(bottom=0)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", frameon=False, fontsize=8)
    return saved(figure, "png")


def _losses(results: Sequence[Result]) -> list[str]:
    """The losses of all curves, the total first."""
    found = {name for result in results for point in result.details["loss_curve"] for name in point}
    return sorted(found - {"iteration", "learning_rate"}, key=lambda name: (name != "total_loss", name))


def _label(result: Result) -> str:
    task, data, name, engine = map(
        clean, (result.task, result.data.name, result.backbone.name, str(result.engine.get("name")))
    )
    return f"{task}, {data}, {name}: {engine}, {clean(result.precision)}, seed {result.seed}"
