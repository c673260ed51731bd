"""The published numbers themselves: chosen, listed one protocol a table, and cited."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.result import RecordError
from reports.citations import bibtex, sources_of
from reports.disagreements import find_disagreements
from reports.document import published_blocks
from reports.formats.blocks import Block, Heading, Notes
from reports.legend import published_legend
from reports.published import CHECKED, Published, load_published
from reports.report import FORMATS


@dataclass(frozen=True)
class Wanted:
    """Which rows: what each must have, in any case of letters; nothing means any.

    `protocol` may be a task alone. With `only_disagreements`, rows that another source contradicts.
    """

    protocol: str = ""
    method: str = ""
    source: str = ""
    checked: str = ""
    only_disagreements: bool = False


def list_published(wanted: Wanted, *, format: str = "markdown") -> str:
    """The wanted rows as text in a report's format, or their sources as `bibtex`.

    Raises:
        RecordError: a format or a mark that does not exist, or no row that is wanted.
    """
    if format not in (*FORMATS, "bibtex"):
        raise RecordError(f"--format {format}: expected one of {', '.join((*FORMATS, 'bibtex'))}")
    if wanted.checked and wanted.checked not in CHECKED:
        raise RecordError(f"--checked {wanted.checked}: expected one of {', '.join(CHECKED)}")
    published = load_published()
    rows = [row for row in published if _is_wanted(row, wanted)]
    if wanted.only_disagreements:
        found = find_disagreements(published)
        disputed = [row for one in found for row in (one.first, one.second)]
        rows = [row for row in rows if row in disputed]
    if not rows:
        raise RecordError(_nothing_found(published))
    return bibtex(sources_of(rows)) if format == "bibtex" else FORMATS[format](_blocks(rows, published))


def _is_wanted(row: Published, wanted: Wanted) -> bool:
    pairs = ((wanted.method, row.method), (wanted.source, row.source.short))
    is_protocol = wanted.protocol.lower() in ("", row.protocol.lower(), row.task)
    is_checked = not wanted.checked or wanted.checked in row.checked.values()
    return is_protocol and is_checked and all(not text or text.lower() == value.lower() for text, value in pairs)


def _blocks(rows: Sequence[Published], published: Sequence[Published]) -> list[Block]:
    blocks: list[Block] = [Heading(1, "Published numbers")]
    for protocol in dict.fromkeys(row.protocol for row in rows):
        own = [row for row in rows if row.protocol == protocol]
        blocks += [Heading(2, protocol), *published_blocks(own, published)]
    return [*blocks, Heading(2, "How to read this"), Notes(published_legend(sources_of(rows)))]


def _nothing_found(published: Sequence[Published]) -> str:
    listed = (
        ("methods", {row.method for row in published}),
        ("sources", {row.source.short for row in published}),
        ("tasks", {row.task for row in published}),
    )
    known = "; ".join(f"{name}: {', '.join(sorted(values))}" for name, values in listed)
    return f"expected published rows, found none that fit all flags; {known}"
