"""What stands under a table: the protocol with every value, the data, how it was run, and what to beware of."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.result import Result
from reports.cells import (
    describe,
    engine_of,
    gain_value,
    measured_value,
    method_of,
    published_value,
    run_words,
    source_of,
)
from reports.diagnosis import diagnose, what_is_skipped
from reports.disagreements import find_disagreements
from reports.formats.blocks import Note
from reports.metrics import columns_of, title_of
from reports.pretraining_logs import PretrainingLog
from reports.published import Published
from reports.trials import Comparable, backbone_key, gains_over_random

HASH_DIGITS = 12
SKIPPED_SHOWN = 5
MAX_DIGITS = 12


def table_notes(table: Comparable, published: Sequence[Published], labels: Mapping[str, str]) -> tuple[Note, ...]:
    """All notes of a measured table, the verdict against random first."""
    notes = [*_random_notes(table, labels), *_differs_notes(table), *_diagnoses(table, published, labels)]
    notes += _mixed_notes(table)
    notes += [Note("Protocol", _protocol(table)), Note("Data", _data(table))]
    notes += [Note("Runs", _runs(table)), Note("Cost", _cost(table))]
    notes += [*_skipped_notes(table.first), *_rerun_notes(table, labels), *_other_metrics(table)]
    return tuple(notes)


def published_notes(rows: Sequence[Published], published: Sequence[Published]) -> tuple[Note, ...]:
    """Remarks on published rows, and where another source disagrees with one of them."""
    notes = dict.fromkeys(f"{_name(row)}: {row.note}" for row in rows if row.note)
    disagreements = [Note("Sources disagree", text) for text in disagreement_texts(rows, published)]
    return (*(Note("Published", text) for text in notes), *disagreements)


def pretraining_notes(logs: Sequence[PretrainingLog]) -> tuple[Note, ...]:
    """The card of each pretraining run: recipe and augmentation, every value in use, data, precision, code and cost."""
    return tuple(
        Note(log.name, _pretraining_card(log) if log.record else "no run.json beside its metrics.jsonl") for log in logs
    )


def _pretraining_card(log: PretrainingLog) -> str:
    record = log.record
    recipe, data = dict(record["recipe"]), record.get("data", {})
    name, augmentation = recipe.pop("name", "unnamed"), dict(recipe.pop("augmentation"))
    changed = ", ".join(change.replace(": ", " ", 1) for change in record.get("differs", ())).replace(" -> ", " → ")
    if recipe.get("cosine"):
        recipe.pop("decay_epochs", None)
    if not augmentation.get("blur_probability", True):
        augmentation.pop("blur_sigma", None)
    settings = {**{f"augmentation {key}": value for key, value in augmentation.items()}, **recipe}
    parts = [
        f"recipe {name}{f' (changed: {changed})' if changed else ''}",
        *(f"{key} {show_setting(value)}" for key, value in settings.items()),
        f"data {data.get('name')}, {data.get('images')} images (list {str(data.get('list_sha256'))[:HASH_DIGITS]})",
        f"seed {record.get('seed')}",
        *(f"{name} {values}" for name in ("precision", "code", "device") if (values := _in_sessions(log, name))),
        duration(float(record.get("wall_seconds", 0))),
        *_how_far(log),
    ]
    return "; ".join(parts)


def _how_far(log: PretrainingLog) -> list[str]:
    """How many epochs are done where that is not all of them, and the last of the online kNN's accuracies."""
    done, asked = len(log.epochs), log.record["recipe"].get("epochs")
    found = [f"{done} of {asked} epochs done"] if isinstance(asked, int) and done < asked else []
    watched = [epoch for epoch in log.epochs if "knn_top1" in epoch]
    if watched:
        last = watched[-1]
        of_embeddings = f", {last['knn_embedding_top1']:.2f} by embeddings" if "knn_embedding_top1" in last else ""
        found.append(
            f"online kNN top-1 {last['knn_top1']:.2f} by pooled features{of_embeddings}, after epoch {last['epoch']:g}"
        )
    return found


def _in_sessions(log: PretrainingLog, name: str) -> str:
    """What the sessions say of it, each value once; nothing where none does."""
    return _distinct(str(session[name]) for session in log.sessions if session.get(name) is not None)


def disagreement_texts(rows: Sequence[Published], published: Sequence[Published]) -> list[str]:
    """In words, each disagreement between two sources that one of these rows takes part in."""
    protocols = {row.protocol for row in rows}
    texts = []
    for found in find_disagreements([row for row in published if row.protocol in protocols]):
        if found.first in rows or found.second in rows:
            titles = " / ".join(title_of(name) for name in found.metrics)
            sides = (
                f"{' / '.join(published_value(row, name) for name in found.metrics)} in {source_of(row)}"
                for row in (found.first, found.second)
            )
            work = (found.first.method, describe(found.first.pretraining), found.first.protocol)
            texts.append(f"{', '.join(work)}: {titles} {' but '.join(sides)}")
    return texts


def _name(row: Published) -> str:
    return f"{method_of(row)}, {describe(row.pretraining)}, {source_of(row)}"


def _data(table: Comparable) -> str:
    """The data's names, classes, and per split its counts and the first digits of its list's hash."""
    data, splits = table.first.data, []
    for name, split in data.splits.items():
        objects = "" if split.objects is None else f", {split.objects} objects"
        splits.append(f"{name} {split.images} images{objects} (list {split.list_sha256[:HASH_DIGITS]})")
    return "; ".join([f"{_distinct(trial.data.name for trial in table.trials)}, {data.classes} classes", *splits])


def show_setting(value: Any) -> str:
    """A setting's value on one line."""
    if isinstance(value, list | tuple):
        return ",".join(show_setting(item) for item in value) or "none"
    if isinstance(value, dict):
        return ",".join(f"{key}={show_setting(item)}" for key, item in value.items()) or "none"
    if isinstance(value, float) and len(str(value)) > MAX_DIGITS:
        return f"{value:.6g}"  # 4/3 and its like
    return str(value)


def _random_notes(table: Comparable, labels: Mapping[str, str]) -> list[Note]:
    """Which rows are above random in every column, together; each that is not, with the columns; each without one."""
    metrics = columns_of(table.first.task, {name for trial in table.trials for name in trial.metrics})
    has_random = any(row.is_random for row in table.rows)
    above, notes = [], []
    for row in table.rows:
        if row.is_random:
            continue
        label = labels[backbone_key(row.first)]
        gains = gains_over_random(table, row, metrics)
        losses = [f"{title_of(gain.metric)} ({gain_value(gain)})" for gain in gains if not gain.is_better]
        if losses:
            notes.append(Note("Against random", f"{label} does not beat random on {', '.join(losses)}"))
        elif gains:
            above.append(label)
        elif has_random and not table.first.protocol.is_custom:  # custom rows are compared with nothing
            same = f"network, seeds, {_one_to_a_row(table)}"
            notes.append(Note("Against random", f"{label} has no random row of the same {same}"))
    if above:
        are = "is" if len(above) == 1 else "are"
        notes.insert(0, Note("Against random", f"{', '.join(above)} {are} above random in every column"))
    return notes


def _differs_notes(table: Comparable) -> list[Note]:
    protocol = table.first.protocol
    if not protocol.is_custom:
        return []
    differs = "; ".join(protocol.differs).replace(" -> ", " → ")
    return [Note("Differs", f"from {protocol.base} in {differs}")]


def _diagnoses(table: Comparable, published: Sequence[Published], labels: Mapping[str, str]) -> list[Note]:
    found = ((row, diagnose(table, row, published)) for row in table.rows)
    return [Note("Off", f"{labels[backbone_key(row.first)]}: {text}") for row, text in found if text]


def _mixed_notes(table: Comparable) -> list[Note]:
    runs = dict.fromkeys(run_words(table, row) for row in table.rows)
    if len(runs) == 1:
        return []
    one = _one_to_a_row(table)
    return [Note("Mixed", f"each row is of one {one}, but the table has several: {'; '.join(runs)}")]


def _one_to_a_row(table: Comparable) -> str:
    """What all trials of a row share besides the backbone, as far as rows differ in it."""
    return "engine, precision and BatchNorm statistics" if table.mixes_batch_norm else "engine and precision"


def _protocol(table: Comparable) -> str:
    protocol = table.first.protocol
    settings = "; ".join(f"{name} {show_setting(value)}" for name, value in protocol.settings.items())
    return f"{protocol.id}: {settings}"


def _runs(table: Comparable) -> str:
    trials = table.trials
    engines = _distinct(f"{engine_of(trial)}, {trial.precision}" for trial in trials)
    seeds = _distinct(str(seed) for seed in sorted({trial.seed for trial in trials}))
    codes = _distinct(" ".join(str(part) for part in trial.code.values()) for trial in trials)
    devices = _distinct(str(trial.environment.get("device", "not said")) for trial in trials)
    word = "seed" if len({trial.seed for trial in trials}) == 1 else "seeds"
    return f"engine {engines}; {word} {seeds}; code {codes}; device {devices}"


def _cost(table: Comparable) -> str:
    seconds = [trial.wall_seconds for trial in table.trials]
    peaks = {name: 0 for trial in table.trials for name in trial.peak_memory_bytes}
    for trial in table.trials:
        for name, size in trial.peak_memory_bytes.items():
            peaks[name] = max(peaks[name], size)
    low, high = (duration(bound) for bound in (min(seconds), max(seconds)))
    time = low if low == high else f"{low} to {high}"
    memory = ", ".join(f"{name} {size / 2**30:.1f} GiB" for name, size in sorted(peaks.items()))
    return f"{time} per run" + (f"; peak memory {memory}" if memory else "")


def duration(seconds: float) -> str:
    """A time for people: `42 s`, `12 min`, `5.3 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _skipped_notes(result: Result) -> list[Note]:
    data = result.data
    if not data.skipped:
        return []
    more = len(data.skipped) - SKIPPED_SHOWN
    listed = "; ".join(data.skipped[:SKIPPED_SHOWN]) + (f"; and {more} more in the records" if more > 0 else "")
    return [Note(f"Skipped {what_is_skipped(result.task)}", f"{len(data.skipped)}: {listed}")]


def _rerun_notes(table: Comparable, labels: Mapping[str, str]) -> list[Note]:
    return [
        Note("Run again", f"{labels[backbone_key(row.first)]}, seed {seed}: the newest of its records counts")
        for row in table.rows
        for seed in row.rerun_seeds
    ]


def _other_metrics(table: Comparable) -> list[Note]:
    """Recorded metrics without a column, for example the best epoch, under the titles their records give them."""
    present = {name: info for trial in table.trials for name, info in trial.metric_info.items()}
    shown = columns_of(table.first.task, present)
    others = [name for name in sorted(present) if name not in shown]
    texts = []
    for name in others:
        values = ", ".join(measured_value(row, name) for row in table.rows)
        texts.append(f"{present[name].title} {values}")
    return [Note("Also recorded", "; ".join(texts) + " (rows in the table's order)")] if texts else []


def _distinct(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(texts))
