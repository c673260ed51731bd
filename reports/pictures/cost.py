"""What a run takes against what it gives."""

from statistics import fmean

from benchmarks.result import Metric
from reports.metrics import title_of
from reports.pictures.figures import MOST_LINES, MOST_PANELS, clean, legend_below, not_shown, panels_of
from reports.pictures.material import WITHOUT_RANDOM, Drawn, Material, compared, headline

# The largest unit of which the longest run takes two or more.
UNITS = (("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))


def cost_against_accuracy(material: Material) -> Drawn | None:
    """The mean wall time of a row's runs and its headline metric, a panel for each table."""
    panels = [(table, compared(table, headline(table))) for table in material.tables]
    panels = [(table, rows) for table, rows in panels if rows]
    if not panels:
        return None
    figure, axes = panels_of(min(len(panels), MOST_PANELS))
    for axis, (table, rows) in zip(axes, panels, strict=False):
        metric = headline(table)
        times = [fmean(trial.wall_seconds for trial in row.trials) for row in rows[:MOST_LINES]]
        unit, seconds = next((one for one in UNITS if max(times) >= 2 * one[1]), UNITS[-1])
        for row, time in zip(rows, times, strict=False):
            axis.plot(time / seconds, fmean(row.values(metric)), **material.look(row))
        info = table.first.metric_info.get(metric, Metric(title_of(metric)))
        axis.set_xlabel(f"wall {unit} of a run")
        axis.set_ylabel(f"{title_of(metric)}, {clean(info.unit)}")
        axis.set_title(f"{clean(table.first.protocol.id)}, {clean(table.first.data.name)}", fontsize=8)
        axis.margins(0.15)
    legend_below(figure, axes)
    limits = f"; {WITHOUT_RANDOM}{not_shown(len(panels), max(len(rows) for _, rows in panels))}"
    return figure, f"Cost against accuracy: the mean wall time of a run and its headline metric{limits}"
