"""What stands in a table's cells: values with spread and trials, differences, and what a row says of itself."""

from collections.abc import Sequence

from benchmarks.result import Result
from reports.published import Pretraining, Published
from reports.trials import Comparable, Gain, Measured, backbone_key, batch_norm_of, is_random

NOTHING = "–"

# One sign per way in which a published number was checked, explained in the legend.
MARKS = {"original": "●", "transcription": "◐", "unchecked": "○"}
BEST, SECOND = "★", "☆"


def measured_value(row: Measured, metric: str) -> str:
    """Mean ± sample standard deviation (number of trials)."""
    mean, spread = row.mean(metric), row.spread(metric)
    if mean is None:
        return NOTHING
    return f"{mean:.2f}{'' if spread is None else f' ± {spread:.2f}'} ({len(row.trials)})"


def signed(points: float) -> str:
    """A difference with its sign, a real minus."""
    return f"{points:+.2f}".replace("-", "−")


def gain_value(gain: Gain) -> str:
    """A difference ± half of its 95 % interval; alone where a side has one trial."""
    return signed(gain.points) + ("" if gain.half_width is None else f" ± {gain.half_width:.2f}")


def best_marks(rows: Sequence[Measured], metric: str, *, higher_is_better: bool) -> list[str]:
    """For each row BEST, SECOND or nothing, as its mean is shown; nothing at all where all backbones are alike.

    Backbones are ranked, each by the better of its rows: two engines are no rivals.
    """
    better = max if higher_is_better else min
    shown = [None if (mean := row.mean(metric)) is None else round(mean, 2) for row in rows]
    keyed = [(backbone_key(row.first), value) for row, value in zip(rows, shown, strict=True)]
    bests: dict[str, float] = {}
    for key, value in keyed:
        if value is not None:
            bests[key] = better(bests.get(key, value), value)
    ranked = sorted(set(bests.values()), reverse=higher_is_better)
    signs = dict(zip(ranked, (BEST, SECOND), strict=False)) if len(ranked) > 1 else {}
    return [signs.get(value, "") if value is not None and value == bests[key] else "" for key, value in keyed]


def published_value(row: Published, metric: str) -> str:
    """A published value with the digits it was printed with, its spread and its trials where they are given."""
    if metric not in row.metrics:
        return NOTHING
    value = f"{row.metrics[metric]:.1f}" if row.samples else str(row.metrics[metric])
    spread = f" ± {row.spread[metric]:.1f}" if row.spread else ""
    return f"{value}{spread}{f' ({row.trials})' if row.trials else ''}"


def pretraining_of(result: Result) -> str:
    """What the record says of a backbone's pretraining, and of its encoder where authors evaluate another one."""
    if is_random(result):
        return "not pretrained"
    provenance = result.backbone.provenance
    epochs, encoder = provenance.get("epochs"), provenance.get("encoder")
    changed = "changed" if provenance.get("recipe_changes") else None
    ends = (f"{epochs} ep" if epochs else None, f"{encoder} encoder" if encoder else None)
    parts = [provenance.get("method"), provenance.get("recipe"), changed, *ends]
    return ", ".join(str(part) for part in parts if part) or "pretraining not said"


def engine_of(result: Result) -> str:
    """The engine and its version, as recorded."""
    name, rest = result.engine.get("name"), {k: v for k, v in result.engine.items() if k not in ("name", "version")}
    words = [str(word) for word in (name, result.engine.get("version")) if word]
    return " ".join([*words, *(f"{key} {value}" for key, value in rest.items())])


def run_words(table: Comparable, row: Measured) -> str:
    """What tells a row from others of its backbone: engine and precision, and BatchNorm where the table mixes it."""
    recorded = batch_norm_of(row.first) if table.mixes_batch_norm else ""
    return f"{engine_of(row.first)}, {row.first.precision}{f', BatchNorm {recorded}' if recorded else ''}"


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
