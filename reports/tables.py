"""Tables of measured and published rows, as plain text cells that any format can render."""

from collections.abc import Mapping, Sequence

from reports.cells import (
    NOTHING,
    best_marks,
    describe,
    gain_value,
    marks_of,
    measured_value,
    method_of,
    pretraining_of,
    published_value,
    run_words,
    source_of,
)
from reports.formats.blocks import MEASURED, PLAIN, PUBLISHED, Row, Table
from reports.metrics import columns_of, headlines_of, title_of
from reports.published import Published
from reports.trials import Comparable, Measured, backbone_key, gains_over_random, higher_is_better

SHORT_TASKS = {
    "imagenet-linear": "linear",
    "imagenet-knn": "kNN",
    "imagenet-semi": "semi",
    "voc-svm": "VOC SVM",
    "voc-detection": "VOC",
    "coco-detection": "COCO",
}


def measured_table(table: Comparable, published: Sequence[Published], labels: Mapping[str, str]) -> Table:
    """Measured rows with their difference to random, and the published rows of the same protocol under them."""
    task = table.first.task
    present = {name for trial in table.trials for name in trial.metrics}
    metrics = columns_of(task, present | {name for row in published for name in row.metrics})
    headlines = headlines_of(task, present)
    gains = [gains_over_random(table, row, headlines) for row in table.rows]
    gain_heads = [" / ".join(title_of(name) for name in headlines) + " − random"] if any(gains) else []
    values = [_measured_column(table.rows, name) for name in metrics]
    rows = []
    for number, row in enumerate(table.rows):
        words = (labels[backbone_key(row.first)], f"{row.first.backbone.arch}, {pretraining_of(row.first)}")
        gain = [" / ".join(gain_value(gain) for gain in gains[number]) or NOTHING] if gain_heads else []
        cells = (*words, *(column[number] for column in values), *gain, run_words(table, row), "")
        rows.append(Row(MEASURED, cells))
    blank = (NOTHING,) if gain_heads else ()
    rows += [Row(PUBLISHED, _published_cells(row, metrics, blank)) for row in published]
    return Table(columns=(*_heads(metrics), *gain_heads, "source", "read"), rows=tuple(rows))


def published_table(published: Sequence[Published]) -> Table:
    """Published rows of one protocol alone."""
    metrics = columns_of(published[0].task, {name for row in published for name in row.metrics})
    rows = tuple(Row(PUBLISHED, _published_cells(row, metrics, ())) for row in published)
    return Table(columns=(*_heads(metrics), "source", "read"), rows=rows)


def baselines_first(published: Sequence[Published]) -> list[Published]:
    """Published rows with random and supervised pretraining on top, otherwise as they came."""
    order = ("random", "supervised")
    return sorted(published, key=lambda row: order.index(row.method) if row.method in order else len(order))


def summary_table(tables: Sequence[Comparable], labels: Mapping[str, str]) -> Table:
    """One row per backbone over everything measured; a column per table and headline metric."""
    heads = [(number, table, name) for number, table in enumerate(tables, start=1) for name in _headlines(table)]
    cells: dict[str, list[str]] = {key: [label] for key, label in labels.items()}
    wins, compared = dict.fromkeys(labels, 0), dict.fromkeys(labels, 0)
    for _, table, name in heads:
        column: dict[str, list[str]] = {}
        for row, value in zip(table.rows, _measured_column(table.rows, name), strict=True):
            key = backbone_key(row.first)
            column.setdefault(key, []).append(value)
            for gain in gains_over_random(table, row, (name,)):
                wins[key], compared[key] = wins[key] + gain.is_better, compared[key] + 1
        for key, line in cells.items():
            line.append(" / ".join(column.get(key, [])) or NOTHING)
    for key, line in cells.items():
        line.append(f"{wins[key]} of {compared[key]}" if compared[key] else NOTHING)
    columns = [f"T{number} {_short_name(table)} {title_of(name)}" for number, table, name in heads]
    columns = ["backbone", *columns, "above random"]
    rows = tuple(Row(PLAIN, tuple(line)) for line in cells.values())
    return Table(columns=tuple(columns), rows=rows, num_left_words=1, num_right_words=0)


def _measured_column(rows: Sequence[Measured], metric: str) -> list[str]:
    """The rows' values in one metric, the best and the second best marked."""
    marks = best_marks(rows, metric, higher_is_better=higher_is_better(rows[0], metric))
    return [f"{measured_value(row, metric)} {mark}".strip() for row, mark in zip(rows, marks, strict=True)]


def _published_cells(row: Published, metrics: Sequence[str], blank: tuple[str, ...]) -> tuple[str, ...]:
    values = [published_value(row, name) for name in metrics]
    tail = (source_of(row), marks_of(row, metrics))
    return (method_of(row), describe(row.pretraining), *values, *blank, *tail)


def _heads(metrics: Sequence[str]) -> tuple[str, ...]:
    return ("backbone", "pretraining", *(title_of(name) for name in metrics))


def _short_name(table: Comparable) -> str:
    return f"{table.kind} {SHORT_TASKS.get(table.first.task, table.first.task)}".strip()


def _headlines(table: Comparable) -> tuple[str, ...]:
    return headlines_of(table.first.task, {name for trial in table.trials for name in trial.metrics})
