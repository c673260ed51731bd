"""A report as CSV: a line for each heading, paragraph, note, table head and row; its first field says which."""

import csv
import io
import re
from collections.abc import Sequence

from reports.formats.blocks import Block, Heading, Notes, Paragraph, Picture, one_line

# A spreadsheet runs what starts like this as a formula, in some languages also after the wide form of the sign.
SIGNS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
NUMBER = re.compile(r"[-+](\d+\.?\d*|\.\d+)(e[-+]?\d+)?( ± (\d+\.?\d*|\.\d+))?", re.IGNORECASE)


def render_csv(blocks: Sequence[Block]) -> str:
    """The blocks in order, RFC 4180 with newlines at the ends of lines; no field can be taken for a formula."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for block in blocks:
        writer.writerows([as_text(field) for field in line] for line in _lines(block))
    return text.getvalue()


def as_text(field: str) -> str:
    """The field on one line, and never a formula."""
    return no_formula(one_line(field))


def no_formula(text: str) -> str:
    """The text, with an apostrophe before it where a spreadsheet would compute it. Numbers, also with ±, stay."""
    return f"'{text}" if text.lstrip().startswith(SIGNS) and not NUMBER.fullmatch(text) else text


def _lines(block: Block) -> list[tuple[str, ...]]:
    if isinstance(block, Heading):
        return [("heading", str(block.level), block.text)]
    if isinstance(block, Paragraph):
        return [("paragraph", block.text)]
    if isinstance(block, Notes):
        return [("note", note.label, note.text) for note in block.items]
    if isinstance(block, Picture):
        return [("picture", block.place, block.caption)]
    return [("head", *block.heads), *(("row", *line) for line in block.lines())]
