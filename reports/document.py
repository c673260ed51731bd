"""The report as a sequence of blocks: which sections, in which order, under which headings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.result import Result
from reports.notes import HASH_DIGITS, Note, published_notes, table_notes
from reports.published import Published, Source
from reports.tables import (
    MARKS,
    Table,
    baselines_first,
    comparison_rows,
    comparison_table,
    measured_table,
    published_table,
    summary_table,
)
from reports.trials import KINDS, Comparable, backbone_key, is_random


@dataclass(frozen=True)
class Heading:
    level: int
    text: str


@dataclass(frozen=True)
class Paragraph:
    text: str


@dataclass(frozen=True)
class Notes:
    items: tuple[Note, ...]


Block = Heading | Paragraph | Table | Notes

SECTIONS = {
    "imagenet-linear": "Linear classification",
    "imagenet-knn": "Nearest neighbours",
    "imagenet-semi": "Few labels",
    "voc-svm": "VOC07 classification, linear SVM",
    "voc-detection": "VOC detection",
    "coco-detection": "COCO detection and segmentation",
}

NOT_COMPARABLE = "Published, for reference: not comparable with the rows above"

TWO_RULES = (
    "MoCo v2's Table 2 quotes SimCLR under the linear rule; the square-root rule, from SimCLR's Table B.1, "
    "is better for small batches. The two methods are probed under different protocols."
)


def build_document(tables: Sequence[Comparable], published: Sequence[Published]) -> tuple[Block, ...]:
    """All blocks of the report on these tables, in order: a section per task, the summary, the legend."""
    results = tuple(trial for table in tables for trial in table.trials)
    labels = backbone_labels(results)
    ordered = sorted(tables, key=_place)
    blocks: list[Block] = [Heading(1, "Transfer report"), Paragraph(_opening(results, labels))]
    for task in dict.fromkeys(table.first.task for table in ordered):
        blocks += _task_section(task, ordered, published, labels)
    blocks += [Heading(2, "Summary: how well each backbone transfers"), summary_table(ordered, labels)]
    blocks += [Notes(_columns_key(ordered)), Heading(2, "Backbones"), Notes(_backbone_notes(results, labels))]
    return (*blocks, Heading(2, "How to read this"), Notes(_legend(_cited(ordered, published))))


def backbone_labels(results: Sequence[Result]) -> dict[str, str]:
    """A distinct name for every backbone: its own, with the digest's first digits where two would share it."""
    keyed = sorted(results, key=lambda result: (is_random(result), result.backbone.name, result.backbone.digest))
    names: dict[str, str] = {}
    for result in keyed:
        names.setdefault(backbone_key(result), "random" if is_random(result) else result.backbone.name or "unnamed")
    archs = {result.backbone.arch for result in keyed if is_random(result)}
    labels = {}
    for result in keyed:
        key = backbone_key(result)
        name, shared = names[key], list(names.values()).count(names[key]) > 1
        if is_random(result):
            labels[key] = name if len(archs) == 1 else f"random {result.backbone.arch}"
        else:
            labels[key] = f"{name} ({result.backbone.digest[:8]})" if shared or name == "random" else name
    return labels


def _task_section(
    task: str, tables: Sequence[Comparable], published: Sequence[Published], labels: Mapping[str, str]
) -> list[Block]:
    blocks: list[Block] = [Heading(2, SECTIONS.get(task, task))]
    for number, table in enumerate(tables, start=1):
        if table.first.task == task:
            beside = _published_beside(table, published)
            blocks.append(Heading(3, f"T{number}. {_title(table)}"))
            blocks += [measured_table(table, beside, labels), Notes(table_notes(table, beside, labels))]
    reference = _published_apart(task, tables, published)
    if reference:
        blocks.append(Heading(3, NOT_COMPARABLE))
    for protocol in dict.fromkeys(row.protocol for row in reference):
        rows = [row for row in reference if row.protocol == protocol]
        notes = (Note("Protocol", f"{protocol}, on the data the papers use"), *published_notes(rows))
        blocks += [published_table(rows), Notes(notes)]
    if task == "imagenet-linear":
        blocks.append(Heading(3, "Published: MoCo v2 against SimCLR, with both of SimCLR's learning-rate rules"))
        blocks += [comparison_table(published), Notes((Note("Beware", TWO_RULES),))]
    return blocks


def _published_beside(table: Comparable, published: Sequence[Published]) -> list[Published]:
    """Published rows of the very protocol of a table: never for `custom` and `smoke`."""
    if table.kind:
        return []
    wanted = ("headline", "beside")
    rows = [row for row in published if row.protocol == table.first.protocol.id and row.show in wanted]
    return baselines_first(rows)


def _published_apart(task: str, tables: Sequence[Comparable], published: Sequence[Published]) -> list[Published]:
    """The best-known published rows of a task, where some of its tables have none beside them."""
    own = [table for table in tables if table.first.task == task]
    if all(_published_beside(table, published) for table in own):
        return []
    beside = {table.first.protocol.id for table in own if _published_beside(table, published)}
    rows = [row for row in published if row.task == task and row.show == "headline" and row.protocol not in beside]
    return baselines_first(rows)


def _title(table: Comparable) -> str:
    protocol, data = table.first.protocol, table.first.data.name
    if table.kind == "custom":
        return f"Custom: changed from {protocol.base}, on {data}"
    return f"Smoke: {protocol.id}, on {data}" if table.kind == "smoke" else f"{protocol.id}, on {data}"


def _place(table: Comparable) -> tuple[int, str, int, str, str]:
    task, order = table.first.task, list(SECTIONS)
    rank = order.index(task) if task in order else len(order)
    protocol = table.first.protocol
    return rank, task, KINDS.index(table.kind), protocol.base, table.first.data.name


def _opening(results: Sequence[Result], labels: Mapping[str, str]) -> str:
    tasks = len({result.task for result in results})
    counts = ((len(results), "run"), (len(labels), "backbone"), (tasks, "task"))
    counted = ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts)
    return f"{counted}. Bold rows were measured here; published rows in the same table are of the same protocol."


def _columns_key(tables: Sequence[Comparable]) -> tuple[Note, ...]:
    return tuple(Note(f"T{number}", _title(table)) for number, table in enumerate(tables, start=1))


def _backbone_notes(results: Sequence[Result], labels: Mapping[str, str]) -> tuple[Note, ...]:
    """Which weights each label stands for: arch, digest and what the records know of their history."""
    notes = []
    for key, label in labels.items():
        own = [result for result in results if backbone_key(result) == key]
        first = own[0].backbone
        if is_random(own[0]):
            notes.append(Note(label, f"{first.arch}, drawn at random, anew for each seed"))
            continue
        history = [
            f"{name} {str(value)[:HASH_DIGITS] if name.endswith('sha256') else value}"
            for name, value in first.provenance.items()
            if isinstance(value, str | int | float)
        ]
        others = sorted({result.backbone.name for result in own} - {label, ""})
        history += [f"in other records named {name}" for name in others if not label.startswith(name)]
        notes.append(Note(label, "; ".join([f"{first.arch}, digest {first.digest[:HASH_DIGITS]}", *history])))
    return tuple(notes)


def _cited(tables: Sequence[Comparable], published: Sequence[Published]) -> tuple[Source, ...]:
    """The sources of every published row in the report."""
    rows = [row for table in tables for row in _published_beside(table, published)]
    tasks = {table.first.task for table in tables}
    rows += [row for task in tasks for row in _published_apart(task, tables, published)]
    if "imagenet-linear" in tasks:
        rows += comparison_rows(published)
    sources = {row.source.short: row.source for row in rows}
    return tuple(sources[short] for short in sorted(sources))


def _legend(cited: Sequence[Source]) -> tuple[Note, ...]:
    marks = (
        f"{MARKS['original']} in the authors' own text or code; {MARKS['transcription']} in a transcription of it; "
        f"{MARKS['unchecked']} not checked; several marks: one per column, in order"
    )
    sources = "; ".join(f"{s.short} = {s.title}" + (f" (arXiv {s.arxiv})" if s.arxiv else "") for s in cited)
    return (
        Note("Values", "percent; mean ± sample standard deviation over n trials, a bare value is a single trial"),
        Note("− random", "difference in points to the random backbone of the same protocol, data and seeds"),
        Note("Smoke", "a protocol sized for two CPU cores: it shows that the chain works, and has no published rows"),
        Note("above random", "columns in which the mean is above the random backbone's: a sign, not a test"),
        Note("Custom", "a protocol with a changed value or other data: never compared with a published row"),
        Note("Published rows", "ResNet-50; a width, such as 2x, is said where it is not 1x"),
        Note("source", "re-run by: measured again by others; printed by: in the text of others"),
        Note("read", f"where the published number was read: {marks}"),
        *([Note("Sources", sources)] if sources else []),
    )
