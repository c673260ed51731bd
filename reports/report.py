"""The way in: folders of result records to the text of a report."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.result import RecordError, Result
from reports.collect import Collection, collect_results
from reports.cost_table import TASK as COST
from reports.cycle_search import paused_cycle_search
from reports.document import build_document
from reports.formats.blocks import Block, Picture
from reports.formats.comma_separated import render_csv
from reports.formats.html_page import render_html
from reports.formats.latex import render_latex
from reports.formats.markdown import render_markdown
from reports.published import load_published
from reports.trials import group_results

FORMATS: dict[str, Callable[[Sequence[Block]], str]] = {
    "markdown": render_markdown,
    "latex": render_latex,
    "csv": render_csv,
    "html": render_html,
}


@paused_cycle_search()
def build_report(folders: Sequence[Path], *, format: str = "markdown", pictures: Sequence[Picture] = ()) -> str:
    """The report on every result record below the folders, beside the published numbers.

    Raises:
        RecordError: a format that does not exist; a folder that is missing; no whole record.
    """
    check_format(format)
    return render_report(collect_results(folders), format=format, pictures=pictures)


def render_report(collection: Collection, *, format: str, pictures: Sequence[Picture] = ()) -> str:
    """The report on these records."""
    tables = group_results(_of_backbones(collection))
    costs = [result for result in collection.results if result.task == COST]
    left_out, logs = collection.left_out, collection.logs
    blocks = build_document(tables, load_published(), costs=costs, left_out=left_out, logs=logs, pictures=pictures)
    return FORMATS[format](blocks)


def draw_report_pictures(
    collection: Collection, *, folder: Path | None = None, out: Path | None = None
) -> tuple[Picture, ...]:
    """The pictures of these records and logs.

    `folder` is where their files will be, and only then is there a PNG; `out` the report's own file, from which it is
    seen.
    """
    from reports.pictures.draw import draw_pictures  # only here is matplotlib needed

    start = (out.parent if out is not None else Path()).resolve()
    place = "" if folder is None else Path(os.path.relpath(folder.resolve(), start)).as_posix()
    tables, with_png = group_results(_of_backbones(collection)), folder is not None
    return draw_pictures(tables, load_published(), collection.logs, place=place, with_png=with_png)


def _of_backbones(collection: Collection) -> list[Result]:
    return [result for result in collection.results if result.task != COST]


def check_format(format: str) -> None:
    """Raises RecordError for a format that does not exist."""
    if format not in FORMATS:
        raise RecordError(f"--format {format}: expected one of {', '.join(FORMATS)}")


def check_report(text: str, file: Path) -> None:
    """Hold a committed file to the report: it has to contain it whole.

    Raises:
        RecordError: it cannot be read, or is stale; the first line that is not there is named.
    """
    try:
        committed = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"--check {file}: expected a committed report, found {error}") from error
    if text not in committed:
        lines = set(committed.splitlines())
        first = next((line for line in text.splitlines() if line not in lines), "the order of the lines")
        raise RecordError(
            f"--check {file}: expected the report of these records, found a stale one, "
            f"without: {first[:100]}; write it again"
        )
