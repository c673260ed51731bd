"""Tables of measured and published rows, as plain text cells that any format can render."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.result import Result
from reports.metrics import columns_of, headlines_of, title_of
from reports.published import Pretraining, Published
from reports.trials import Comparable, Measured, backbone_key, gains_over_random, is_random

MEASURED = "measured"
PUBLISHED = "published"
PLAIN = ""  # in tables where there is nothing to tell apart
NOTHING = "–"

# One sign per way in which a published number was checked, explained in the legend.
MARKS = {"original": "●", "transcription": "◐", "unchecked": "○"}

SHORT_TASKS = {
    "imagenet-linear": "linear",
    "imagenet-knn": "kNN",
    "imagenet-semi": "semi",
    "voc-svm": "VOC SVM",
    "voc-detection": "VOC",
    "coco-detection": "COCO",
}


@dataclass(frozen=True)
class Row:
    """One line of a table; `kind` says whether we measured it (MEASURED) or someone published it (PUBLISHED)."""

    kind: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Column heads, the rows, and how many columns at the left and at the right hold words; between them, numbers."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    num_left_words: int = 2
    num_right_words: int = 2


def measured_table(table: Comparable, published: Sequence[Published], labels: Mapping[str, str]) -> Table:
    """Measured rows with their difference to random, and the published rows of the same protocol under them."""
    task = table.first.task
    present = {name for trial in table.trials for name in trial.metrics}
    metrics = columns_of(task, present | {name for row in published for name in row.metrics})
    headlines = headlines_of(task, present)
    has_baseline = any(table.random_row(row) for row in table.rows)
    gain_head = " / ".join(title_of(name) for name in headlines) + " − random"
    columns = (*_heads(metrics), *([gain_head] if has_baseline else []), "n", "source", "read")
    rows = []
    for row in table.rows:
        gains = [signed(gain.points) for gain in gains_over_random(table, row, headlines)]
        values = [measured_value(row, name) for name in metrics]
        baseline = [" / ".join(gains) or NOTHING] if has_baseline else []
        words = (labels[backbone_key(row.first)], f"{row.first.backbone.arch}, {pretraining_of(row.first)}")
        tail = (str(len(row.trials)), f"{engine_of(row.first)}, {row.first.precision}", "")
        rows.append(Row(MEASURED, (*words, *values, *baseline, *tail)))
    blank = (NOTHING,) if has_baseline else ()
    rows += [Row(PUBLISHED, _published_cells(row, metrics, blank)) for row in published]
    return Table(columns=columns, rows=tuple(rows))


def published_table(published: Sequence[Published]) -> Table:
    """Published rows of one protocol alone."""
    metrics = columns_of(published[0].task, {name for row in published for name in row.metrics})
    rows = tuple(Row(PUBLISHED, _published_cells(row, metrics, ())) for row in published)
    return Table(columns=(*_heads(metrics), "n", "source", "read"), rows=rows)


def comparison_table(published: Sequence[Published]) -> Table:
    """MoCo v2's Table 2 with both of SimCLR's learning-rate rules. The two are probed differently, so it is named."""
    cells = tuple(
        Row(
            PUBLISHED,
            (
                row.method,
                row.pretraining.lr_rule or NOTHING,
                str(row.pretraining.epochs),
                str(row.pretraining.batch),
                published_value(row, "top1"),
                row.protocol,
                source_of(row),
                marks_of(row, ("top1",)),
            ),
        )
        for row in comparison_rows(published)
    )
    columns = ("method", "lr rule", "epochs", "batch", "top-1", "probed by", "source", "read")
    return Table(columns=columns, rows=cells, num_right_words=3)


def comparison_rows(published: Sequence[Published]) -> list[Published]:
    """The rows of MoCo v2's Table 2, each SimCLR row followed by its own under the square-root rule."""
    rows = []
    for row in published:
        if row.show == "comparison":
            rows += [row, *(other for other in published if _is_other_rule(row, other))]
    return rows


def baselines_first(published: Sequence[Published]) -> list[Published]:
    """Published rows with random and supervised pretraining on top, otherwise as they came."""
    order = ("random", "supervised")
    return sorted(published, key=lambda row: order.index(row.method) if row.method in order else len(order))


def summary_table(tables: Sequence[Comparable], labels: Mapping[str, str]) -> Table:
    """One row per backbone over everything measured; a column per table and headline metric."""
    heads = [(number, table, name) for number, table in enumerate(tables, start=1) for name in _headlines(table)]
    rows = []
    for key, label in labels.items():
        cells, wins, compared = [label], 0, 0
        for _, table, name in heads:
            own = [row for row in table.rows if backbone_key(row.first) == key]
            cells.append(" / ".join(f"{measured_value(row, name)} ({len(row.trials)})" for row in own) or NOTHING)
            gains = [gain for row in own for gain in gains_over_random(table, row, (name,))]
            wins, compared = wins + sum(gain.is_better for gain in gains), compared + len(gains)
        rows.append(Row(PLAIN, (*cells, f"{wins} of {compared}" if compared else NOTHING)))
    columns = [f"T{number} {_short_name(table)} {title_of(name)}" for number, table, name in heads]
    columns = ["backbone", *columns, "above random"]
    return Table(columns=tuple(columns), rows=tuple(rows), num_left_words=1, num_right_words=0)


def measured_value(row: Measured, metric: str) -> str:
    """Mean ± sample standard deviation; the bare value for a single trial."""
    mean, spread = row.mean(metric), row.spread(metric)
    if mean is None:
        return NOTHING
    return f"{mean:.2f}" if spread is None else f"{mean:.2f} ± {spread:.2f}"


def signed(points: float) -> str:
    """A difference with its sign, a real minus."""
    return f"{points:+.2f}".replace("-", "−")


def published_value(row: Published, metric: str) -> str:
    """A published value with the digits it was printed with, and its spread where one is given."""
    if metric not in row.metrics:
        return NOTHING
    value = f"{row.metrics[metric]:.1f}" if row.samples else str(row.metrics[metric])
    return f"{value} ± {row.spread[metric]:.1f}" if row.spread else value


def pretraining_of(result: Result) -> str:
    """What the record says of a backbone's pretraining."""
    if is_random(result):
        return "not pretrained"
    provenance = result.backbone.provenance
    epochs = provenance.get("epochs")
    parts = [provenance.get("method"), provenance.get("recipe"), f"{epochs} ep" if epochs else None]
    return ", ".join(str(part) for part in parts if part) or "pretraining not said"


def engine_of(result: Result) -> str:
    """The engine and its version, as recorded."""
    name, rest = result.engine.get("name"), {k: v for k, v in result.engine.items() if k not in ("name", "version")}
    words = [str(word) for word in (name, result.engine.get("version")) if word]
    return " ".join([*words, *(f"{key} {value}" for key, value in rest.items())])


def source_of(row: Published) -> str:
    """Source, table, and who measured it when it was not the authors."""
    origin = "" if row.origin == "original" else f" ({row.origin})"
    return f"{row.source.short}, {row.table}{origin}"


def method_of(row: Published) -> str:
    return f"{row.method} {row.case}".strip()


def marks_of(row: Published, metrics: Sequence[str]) -> str:
    """How a row's numbers were checked: one mark if all alike, else one per shown metric in order."""
    marks = [MARKS[row.checked[name]] for name in metrics if name in row.checked]
    return marks[0] if len(set(marks)) == 1 else "/".join(marks)


def describe(pretraining: Pretraining) -> str:
    """A published row's pretraining in the paper's words."""
    p = pretraining
    parts = (
        f"{p.epochs} ep" if p.epochs else "",
        f"batch {p.batch}" if p.batch and p.epochs else "",
        "MLP" if p.mlp else "",
        "aug+" if p.aug_plus else "",
        "cos" if p.cos else "",
        "symmetric" if p.symmetric else "",
        f"T {p.temperature}" if p.temperature else "",
        f"{p.lr_rule} lr rule" if p.lr_rule else "",
        p.width or "",
        p.images or "",
    )
    return ", ".join(part for part in parts if part) or NOTHING


def _published_cells(row: Published, metrics: Sequence[str], blank: tuple[str, ...]) -> tuple[str, ...]:
    values = [published_value(row, name) for name in metrics]
    tail = (str(row.trials or NOTHING), source_of(row), marks_of(row, metrics))
    return (method_of(row), describe(row.pretraining), *values, *blank, *tail)


def _heads(metrics: Sequence[str]) -> tuple[str, ...]:
    return ("backbone", "pretraining", *(title_of(name) for name in metrics))


def _short_name(table: Comparable) -> str:
    return f"{table.kind} {SHORT_TASKS.get(table.first.task, table.first.task)}".strip()


def _headlines(table: Comparable) -> tuple[str, ...]:
    return headlines_of(table.first.task, {name for trial in table.trials for name in trial.metrics})


def _is_other_rule(quoted: Published, other: Published) -> bool:
    """SimCLR's own row of the same epochs and batch under the square-root rule."""
    same = (quoted.method, quoted.protocol) == (other.method, other.protocol)
    a, b = quoted.pretraining, other.pretraining
    return same and (a.epochs, a.batch) == (b.epochs, b.batch) and b.lr_rule == "sqrt"
