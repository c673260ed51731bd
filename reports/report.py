"""The way in: folders of result records to the text of a report."""

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.result import RecordError
from reports.collect import collect_results
from reports.document import Block, build_document
from reports.markdown import render_markdown
from reports.published import load_published
from reports.trials import group_results

FORMATS: dict[str, Callable[[Sequence[Block]], str]] = {"markdown": render_markdown}


def build_report(folders: Sequence[Path], *, format: str = "markdown") -> str:
    """The report on every result record below the folders, beside the published numbers.

    Raises:
        RecordError: a format that does not exist; a folder that is missing or holds no record; a broken record.
    """
    if format not in FORMATS:
        raise RecordError(f"--format {format}: expected one of {', '.join(FORMATS)}")
    tables = group_results(collect_results(folders))
    return FORMATS[format](build_document(tables, load_published()))
