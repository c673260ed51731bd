"""MoCo v2's Table 3: what a mechanism of contrast costs, the published rows with what was measured here."""

from collections.abc import Sequence

import msgspec

from benchmarks.result import Count, RecordError, Result, in_words
from reports.cells import NOTHING, marks_of, published_value, source_of
from reports.formats.blocks import MEASURED, PUBLISHED, Block, Heading, Note, Notes, Row, Table
from reports.notes import published_notes, show_setting
from reports.published import Published

TASK = "pretrain-cost"
PAPER_DEVICES, PAPER_GPU = 8, "8 x V100 16 GB"  # the caption of Table 3
COLUMNS = (
    "mechanism",
    "on",
    "batch",
    "images per device",
    "memory per device",
    "images/s",
    "time for 200 epochs, h",
    "source",
    "read",
)
PAPER_MEMORY = "GB of a GPU"
MEMORY = (
    f"published: {PAPER_MEMORY}; measured: GiB, the largest that tensors took on the GPU, or the resident memory of "
    "the process on a CPU"
)
UNMEASURED = "none; the command bench pretrain-cost measures them"
MECHANISMS = {"moco": "MoCo"}
IN_THE_ROW = ("method", "batch_size", "arch", "image_size")
TIME = (
    "measured: 200 epochs of 1,281,167 images on the one device, projected from the median training step on random "
    "views: data has to keep up, and several devices would share the time"
)


def cost_blocks(results: Sequence[Result], published: Sequence[Published]) -> list[Block]:
    """The section on the costs of pretraining; nothing without a record of them."""
    if not results:
        return []
    rows = cost_rows(published)
    notes = (Note("Memory", MEMORY), Note("Time", TIME), *_cards(results), *published_notes(rows, published))
    return [Heading(2, "Cost of pretraining: the paper's Table 3"), cost_table(results, rows), Notes(notes)]


def published_cost_blocks(published: Sequence[Published]) -> list[Block]:
    """Table 3 as the paper has it, where nothing was measured."""
    rows = cost_rows(published)
    notes = (Note("Memory", PAPER_MEMORY), Note("Measured rows", UNMEASURED), *published_notes(rows, published))
    return [Heading(3, "Table 3: cost of pretraining"), cost_table((), rows), Notes(notes)]


def _cards(results: Sequence[Result]) -> list[Note]:
    """Settings, steps, threads and code of the measured rows, together for mechanisms that have them in common."""
    cards: dict[str, list[str]] = {}
    for result, cost in _measured(results):
        shown = {name: value for name, value in result.protocol.settings.items() if name not in IN_THE_ROW}
        settings = "; ".join(f"{name} {show_setting(value)}" for name, value in shown.items())
        run = (
            f"median of {result.details.get('num_steps', 'unknown')} steps",
            f"threads {result.environment.get('threads', 'not said')}",
            f"code {' '.join(map(str, result.code.values()))}",
        )
        cards.setdefault("; ".join(filter(None, (settings, *run))), []).append(_mechanism(cost))
    return [Note(f"Protocol, {', '.join(dict.fromkeys(own))}", card) for card, own in cards.items()]


def _mechanism(cost: "_Cost") -> str:
    """As the paper's table calls it."""
    return MECHANISMS.get(cost.method, cost.method)


def cost_rows(published: Sequence[Published]) -> list[Published]:
    """The rows of Table 3."""
    return [row for row in published if (row.source.short, row.table) == ("MoCo v2", "Table 3")]


def cost_table(results: Sequence[Result], published: Sequence[Published]) -> Table:
    """The paper's rows, then the measured ones by mechanism as the paper has them, batch and device."""
    rows = []
    for row in published:
        images = row.pretraining.batch or 0
        values = (published_value(row, "gpu_memory_gb"), NOTHING, published_value(row, "hours"))
        tail = (source_of(row), marks_of(row, tuple(row.metrics)))
        sizes = (str(images), str(images // PAPER_DEVICES))
        rows.append(Row(PUBLISHED, (row.method, PAPER_GPU, *sizes, *values, *tail)))
    for result, cost in _measured(results):
        where = f"{cost.device}, {result.precision}"
        if result.protocol.differs:
            where += f", {cost.arch} at {cost.image_size} pixels"
        values = (f"{cost.memory_gib:.2f}", f"{cost.images_per_second:.1f}", f"{cost.hours_200_epochs:.0f}")
        batch = str(cost.batch_size)
        rows.append(Row(MEASURED, (_mechanism(cost), where, batch, batch, *values, "", "")))
    return Table(columns=COLUMNS, rows=tuple(rows))


def check_costs(result: Result) -> None:
    """Raises RecordError for a record of this task that lacks what the table shows."""
    if result.task != TASK:
        return
    try:
        _cost_of(result)
    except msgspec.ValidationError as error:
        raise RecordError(f"expected a whole record of {TASK}, but {in_words(error)}; remove or rerun it") from error


class _Cost(msgspec.Struct):
    method: str
    batch_size: Count
    arch: str
    image_size: Count
    device: str
    memory_gib: float
    images_per_second: float
    hours_200_epochs: float


def _cost_of(result: Result) -> _Cost:
    return msgspec.convert({**result.protocol.settings, **result.environment, **result.metrics}, _Cost)


def _measured(results: Sequence[Result]) -> list[tuple[Result, _Cost]]:
    """One record for each thing that was measured, in the table's order."""
    newest = {result.backbone.digest: result for result in sorted(results, key=lambda result: result.created)}
    return sorted(((result, _cost_of(result)) for result in newest.values()), key=_order)


def _order(measured: tuple[Result, _Cost]) -> tuple[bool, str, int, str]:
    result, cost = measured
    return (cost.method.lower() != "moco", cost.device, cost.batch_size, result.precision)
