"""The report as a sequence of blocks: which sections, in which order, under which headings."""

from collections.abc import Mapping, Sequence

from benchmarks.result import Result
from reports.citations import sources_of
from reports.claims import load_claims
from reports.collect import LeftOut
from reports.cost_table import cost_blocks, cost_rows, published_cost_blocks
from reports.formats.blocks import Block, Heading, Note, Notes, Paragraph, Picture
from reports.labels import backbone_labels, backbone_notes
from reports.legend import published_legend, report_legend
from reports.notes import pretraining_notes, published_notes, table_notes
from reports.paper_tables import (
    VOC,
    ablation_table,
    comparison_rows,
    comparison_table,
    rerun_rows,
    table_1,
    temperature_rows,
    temperature_table,
)
from reports.pretraining_logs import PretrainingLog
from reports.published import Published
from reports.tables import baselines_first, measured_table, published_table, summary_table
from reports.trials import KINDS, Comparable
from reports.verdicts import judge, verdict_table

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
RERUN = "SimCLR's own paper has no detection; these numbers are SimSiam's, of its own re-runs of every other method"
LEFT_OUT_SHOWN = 50


def build_document(
    tables: Sequence[Comparable],
    published: Sequence[Published],
    *,
    costs: Sequence[Result] = (),
    left_out: Sequence[LeftOut] = (),
    logs: Sequence[PretrainingLog] = (),
    pictures: Sequence[Picture] = (),
) -> tuple[Block, ...]:
    """All blocks of the report on these tables, in order: a section per task, the paper's tables, claims, summary.

    `costs` are the records of what pretraining costs. They rank no backbone and have a section of their own.
    """
    if not tables:
        legend = [Notes(published_legend(sources_of(cost_rows(published))))] if costs else []
        sections = (*_pictures_section(pictures), *cost_blocks(costs, published), *_pretraining_section(logs))
        return (Heading(1, "Report"), *sections, *_left_out_section(left_out), *legend)
    results = tuple(trial for table in tables for trial in table.trials)
    labels = backbone_labels(results)
    ordered = in_order(tables)
    tasks = tuple(dict.fromkeys(table.first.task for table in ordered))
    blocks: list[Block] = [Heading(1, "Transfer report"), Paragraph(_opening(results, labels))]
    for task in tasks:
        blocks += _task_section(task, ordered, published, labels)
    blocks += _paper_section(tasks, ordered, published, labels, has_costs=bool(costs))
    verdicts = [judge(claim, tables, published) for claim in load_claims()]
    blocks += [Heading(2, "Claims"), verdict_table(verdicts)]
    blocks += [Heading(2, "Summary: how well each backbone transfers"), summary_table(ordered, labels)]
    blocks.append(Notes(_columns_key(ordered)))
    blocks += _pictures_section(pictures) + cost_blocks(costs, published)
    blocks += [Heading(2, "Backbones"), Notes(backbone_notes(results, labels))]
    blocks += _pretraining_section(logs) + _left_out_section(left_out)
    cited = _cited(ordered, published) + (tuple(cost_rows(published)) if costs else ())
    return (*blocks, Heading(2, "How to read this"), Notes(report_legend(sources_of(cited))))


def _task_section(
    task: str, tables: Sequence[Comparable], published: Sequence[Published], labels: Mapping[str, str]
) -> list[Block]:
    blocks: list[Block] = [Heading(2, SECTIONS.get(task, task))]
    for number, table in enumerate(tables, start=1):
        if table.first.task == task:
            beside = _published_beside(table, published)
            notes = (*table_notes(table, published, labels), *published_notes(beside, published))
            blocks += [Heading(3, f"T{number}. {_title(table)}"), measured_table(table, beside, labels), Notes(notes)]
    reference = _published_apart(task, tables, published)
    if reference:
        blocks.append(Heading(3, NOT_COMPARABLE))
    for protocol in dict.fromkeys(row.protocol for row in reference):
        blocks += published_blocks([row for row in reference if row.protocol == protocol], published)
    return blocks


def published_blocks(rows: Sequence[Published], published: Sequence[Published], *notes: Note) -> list[Block]:
    """The table of published rows of one protocol, with its notes; `published` are all that may disagree with them."""
    return [published_table(rows), _published_card(rows, published, *notes)]


def _published_card(rows: Sequence[Published], published: Sequence[Published], *notes: Note) -> Notes:
    """What stands under published rows: their protocols, remarks, and which other source disagrees with one."""
    protocols = ", ".join(dict.fromkeys(row.protocol for row in rows))
    protocol = Note("Protocol", f"{protocols}, on the data the papers use")
    return Notes((*notes, protocol, *published_notes(rows, published)))


def _paper_section(
    tasks: Sequence[str],
    tables: Sequence[Comparable],
    published: Sequence[Published],
    labels: Mapping[str, str],
    *,
    has_costs: bool,
) -> list[Block]:
    """The tables of the MoCo v2 paper that have to do with the measured tasks; measured costs have a section."""
    blocks: list[Block] = []
    if {"imagenet-linear", "voc-detection"} & set(tasks):
        rows = [*table_1(published), *table_1(published, VOC)]
        blocks += [Heading(3, "Table 1: ablation"), ablation_table(published, tables, labels)]
        blocks.append(_published_card(rows, published, *_own_cards(rows, tables)))
    if "imagenet-linear" in tasks:
        blocks.append(Heading(3, "Table 2: MoCo v2 against SimCLR, with both of SimCLR's learning-rate rules"))
        blocks.append(comparison_table(published, tables, labels))
        rows = comparison_rows(published)
        blocks.append(_published_card(rows, published, Note("Beware", TWO_RULES), *_own_cards(rows, tables)))
        blocks += [] if has_costs else published_cost_blocks(published)
        blocks += [Heading(3, "Temperature: linear top-1 after 200 epochs"), temperature_table(published)]
        blocks.append(_published_card(temperature_rows(published), published))
    for task in tasks:
        for protocol, rows in rerun_rows(published, task).items():
            blocks += [Heading(3, f"Transfer of other methods, re-run by SimSiam: {protocol}")]
            blocks += published_blocks(rows, published, Note("Re-run", RERUN))
    return [Heading(2, "The paper's tables"), *blocks] if blocks else []


def _own_cards(rows: Sequence[Published], tables: Sequence[Comparable]) -> list[Note]:
    """Where the cards of the measured rows in a table of the paper are."""
    protocols = {row.protocol for row in rows}
    own = [
        f"T{n}" for n, table in enumerate(tables, start=1) if not table.kind and table.first.protocol.id in protocols
    ]
    return [Note("Measured rows", f"their cards are under {', '.join(own)}")] if own else []


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


def in_order(tables: Sequence[Comparable]) -> list[Comparable]:
    """Tables as a report numbers them: by task, the papers' protocols before smoke and custom ones."""
    return sorted(tables, key=_place)


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


def _pictures_section(pictures: Sequence[Picture]) -> list[Block]:
    return [Heading(2, "Pictures"), *pictures] if pictures else []


def _pretraining_section(logs: Sequence[PretrainingLog]) -> list[Block]:
    return [Heading(2, "Pretraining runs"), Notes(pretraining_notes(logs))] if logs else []


def _left_out_section(left_out: Sequence[LeftOut]) -> list[Block]:
    """Files that look like records and are in no table: broken, of another version, or copies."""
    if not left_out:
        return []
    notes = [Note(one.file, one.reason) for one in left_out[:LEFT_OUT_SHOWN]]
    more = len(left_out) - len(notes)
    notes += [Note("and", f"{more} more")] if more else []
    return [Heading(2, "Records left out"), Notes(tuple(notes))]


def _cited(tables: Sequence[Comparable], published: Sequence[Published]) -> tuple[Published, ...]:
    """Every published row in the sections of the tasks."""
    rows = [row for table in tables for row in _published_beside(table, published)]
    tasks = {table.first.task for table in tables}
    rows += [row for task in tasks for row in _published_apart(task, tables, published)]
    rows += [row for task in tasks for own in rerun_rows(published, task).values() for row in own]
    if {"imagenet-linear", "voc-detection"} & tasks:
        rows += table_1(published)
    if "imagenet-linear" in tasks:
        rows += [*comparison_rows(published), *temperature_rows(published)]
    return tuple(rows)
