"""The tables of the MoCo v2 paper, each published row followed by the measured one that repeats it."""

from collections.abc import Mapping, Sequence

from reports.cells import NOTHING, marks_of, measured_value, method_of, published_value, source_of
from reports.formats.blocks import MEASURED, PUBLISHED, Row, Table
from reports.metrics import title_of
from reports.published import Published
from reports.trials import Comparable, Measured, backbone_key
from reports.twins import measured_twins

LINEAR, VOC = "imagenet-linear/moco@1", "voc-detection/moco-c4-24k@1"
VOC_METRICS = ("ap50", "ap", "ap75")
SWITCHES = ("mlp", "aug_plus", "cos")


def ablation_table(published: Sequence[Published], tables: Sequence[Comparable], labels: Mapping[str, str]) -> Table:
    """Table 1: the switches, linear classification and VOC detection, one line per recipe and backbone."""
    rows = []
    for linear in table_1(published):
        voc = next(row for row in table_1(published, VOC) if row.recipe == linear.recipe)
        words = (method_of(linear), *_switches(linear), str(linear.pretraining.epochs or NOTHING))
        values = [published_value(linear, "top1"), *(published_value(voc, name) for name in VOC_METRICS)]
        read = f"{marks_of(linear, ('top1',))}; {marks_of(voc, VOC_METRICS)}"
        rows.append(Row(PUBLISHED, (*words, *values, source_of(linear), read)))
        rows += _measured_lines(linear, voc, tables, labels)
    metrics = [f"linear {title_of('top1')}", *(f"VOC {title_of(name)}" for name in VOC_METRICS)]
    columns = ("case", "MLP", "aug+", "cos", "epochs", *metrics, "source", "read")
    return Table(columns=columns, rows=tuple(rows), num_left_words=4)


def table_1(published: Sequence[Published], protocol: str = LINEAR) -> list[Published]:
    """The rows of the paper's Table 1 under one of its two protocols."""
    return [row for row in published if (row.source.short, row.table, row.protocol) == ("MoCo v2", "Table 1", protocol)]


def comparison_table(published: Sequence[Published], tables: Sequence[Comparable], labels: Mapping[str, str]) -> Table:
    """Table 2, with both of SimCLR's learning-rate rules. The two methods are probed differently, so it is named."""
    rows = []
    for row in comparison_rows(published):
        p = row.pretraining
        settings = (p.lr_rule or NOTHING, str(p.epochs), str(p.batch))
        tail = (row.protocol, source_of(row), marks_of(row, ("top1",)))
        rows.append(Row(PUBLISHED, (row.method, *settings, published_value(row, "top1"), *tail)))
        for measured in measured_twins(row, tables):
            value, label = measured_value(measured, "top1"), labels[backbone_key(measured.first)]
            rows.append(Row(MEASURED, (label, *settings, value, row.protocol, "", "")))
    columns = ("method", "lr rule", "epochs", "batch", "top-1", "probed by", "source", "read")
    return Table(columns=columns, rows=tuple(rows), num_right_words=3)


def comparison_rows(published: Sequence[Published]) -> list[Published]:
    """The rows of Table 2, each SimCLR row followed by its own under the square-root rule."""
    rows = []
    for row in published:
        if row.show == "comparison":
            rows += [row, *(other for other in published if _is_other_rule(row, other))]
    return rows


def temperature_table(published: Sequence[Published]) -> Table:
    """Linear accuracy against the temperature, without and with the MLP head."""
    cells = temperature_rows(published)
    temperatures = sorted({row.pretraining.temperature or 0.0 for row in cells})
    rows = []
    for mlp in (False, True):
        values = {row.pretraining.temperature: row for row in cells if row.pretraining.mlp is mlp}
        shown = [published_value(values[temperature], "top1") for temperature in temperatures]
        tail = (source_of(cells[0]), marks_of(cells[0], ("top1",)))
        rows.append(Row(PUBLISHED, ("with MLP" if mlp else "without MLP", *shown, *tail)))
    columns = ("top-1", *(f"T {temperature}" for temperature in temperatures), "source", "read")
    return Table(columns=columns, rows=tuple(rows), num_left_words=1)


def temperature_rows(published: Sequence[Published]) -> list[Published]:
    return [row for row in published if (row.source.short, row.table) == ("MoCo v2", "temperature")]


def rerun_rows(published: Sequence[Published], task: str) -> dict[str, list[Published]]:
    """SimSiam's Table 5, its re-runs of all methods, by protocol id. SimCLR's own paper has no detection."""
    found: dict[str, list[Published]] = {}
    for row in published:
        if (row.source.short, row.table, row.task) == ("SimSiam", "Table 5", task):
            found.setdefault(row.protocol, []).append(row)
    return found


def _measured_lines(
    linear: Published, voc: Published, tables: Sequence[Comparable], labels: Mapping[str, str]
) -> list[Row]:
    own = {LINEAR: measured_twins(linear, tables), VOC: measured_twins(voc, tables)}
    keys = dict.fromkeys(backbone_key(row.first) for rows in own.values() for row in rows)
    lines = []
    for key in keys:
        values = [_joined(own[LINEAR], key, "top1"), *(_joined(own[VOC], key, name) for name in VOC_METRICS)]
        words = (labels[key], *_switches(linear), str(linear.pretraining.epochs or NOTHING))
        lines.append(Row(MEASURED, (*words, *values, "", "")))
    return lines


def _joined(rows: Sequence[Measured], key: str, metric: str) -> str:
    """A backbone's values; rows of several engines or precisions stand side by side, never in one mean."""
    return " / ".join(measured_value(row, metric) for row in rows if backbone_key(row.first) == key) or NOTHING


def _switches(row: Published) -> tuple[str, ...]:
    return tuple("✓" if getattr(row.pretraining, name) else "" for name in SWITCHES)


def _is_other_rule(quoted: Published, other: Published) -> bool:
    """SimCLR's own row of the same epochs and batch under the square-root rule."""
    same = (quoted.method, quoted.protocol) == (other.method, other.protocol)
    a, b = quoted.pretraining, other.pretraining
    return same and (a.epochs, a.batch) == (b.epochs, b.batch) and b.lr_rule == "sqrt"
