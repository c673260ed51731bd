"""MoCo v2's Table 3: what a mechanism of contrast costs, the published rows with what was measured here."""

from collections.abc import Sequence

from benchmarks.result import Result
from reports.cells import NOTHING, marks_of, published_value, source_of
from reports.formats.blocks import MEASURED, PUBLISHED, Block, Heading, Note, Notes, Row, Table
from reports.notes import published_notes
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
MEMORY = (
    "published: GB of a GPU; measured: GiB, the largest that tensors took on the GPU, or the resident memory of the "
    "process on a CPU"
)
TIME = (
    "measured: 200 epochs of 1,281,167 images on the one device, projected from the median training step on random "
    "views: data has to keep up, and several devices would share the time"
)


def cost_blocks(results: Sequence[Result], published: Sequence[Published]) -> list[Block]:
    """The section on the costs of pretraining; nothing without a record of them."""
    if not results:
        return []
    rows = cost_rows(published)
    notes = (Note("Memory", MEMORY), Note("Time", TIME), *published_notes(rows, published))
    return [Heading(2, "Cost of pretraining: the paper's Table 3"), cost_table(results, rows), Notes(notes)]


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
    for result in sorted(_newest(results), key=_order):
        settings, metrics = result.protocol.settings, result.metrics
        where = f"{result.environment['device']}, {result.precision}"
        if result.protocol.differs:
            where += f", {settings['arch']} at {settings['image_size']} pixels"
        values = (
            f"{metrics['memory_gib']:.2f}",
            f"{metrics['images_per_second']:.1f}",
            f"{metrics['hours_200_epochs']:.0f}",
        )
        batch = str(settings["batch_size"])
        rows.append(Row(MEASURED, (str(settings["method"]), where, batch, batch, *values, "", "")))
    return Table(columns=COLUMNS, rows=tuple(rows))


def _newest(results: Sequence[Result]) -> list[Result]:
    """One record for each thing that was measured."""
    newest = {result.backbone.digest: result for result in sorted(results, key=lambda result: result.created)}
    return list(newest.values())


def _order(result: Result) -> tuple[bool, str, int, str]:
    settings = result.protocol.settings
    return (
        settings["method"].lower() != "moco",
        str(result.environment["device"]),
        settings["batch_size"],
        result.precision,
    )
