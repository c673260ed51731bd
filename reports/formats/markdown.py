"""A report's blocks as GitHub markdown that also reads well as plain text."""

import re
import textwrap
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import quote

from tabulate import tabulate

from reports.formats.blocks import MEASURED, Block, Heading, Notes, Paragraph, Picture, Table, one_line

WIDTH = 110

SPECIAL = re.compile(r"([\\`*\[\]<>|~&$#])")
OUTER_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")
# A lone dash or plus, or a number with a dot, would start a list where a line happens to break.
LIST_SIGN = re.compile(r"(?<!\S)(\d+(?=[.)])|(?=[-+]))([-+.)])(?!\S)")


def render_markdown(blocks: Sequence[Block]) -> str:
    """The blocks with a blank line between them. Every text in them is taken as text, never as markdown."""
    return "\n\n".join(_render_block(block) for block in blocks) + "\n"


@lru_cache(maxsize=1024)  # cells of a table have much in common
def escape(text: str) -> str:
    """Text that renders as itself, on one line, also inside a table's cell."""
    line = one_line(text)
    line = SPECIAL.sub(r"\\\1", line)
    line = OUTER_UNDERSCORE.sub(r"\\_", line)
    return LIST_SIGN.sub(r"\1\\\2", line)


def _render_block(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {escape(block.text)}"
    if isinstance(block, Paragraph):
        return _wrap(escape(block.text), "")
    if isinstance(block, Notes):
        return "\n".join(_wrap(f"- **{escape(note.label)}**: {escape(note.text)}", "  ") for note in block.items)
    if isinstance(block, Picture):
        return f"![{escape(block.caption)}]({quote(block.place)})"
    return _render_table(block)


def _wrap(text: str, indent: str) -> str:
    wrapper = textwrap.TextWrapper(WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return wrapper.fill(text)


def _render_table(table: Table) -> str:
    lines = [[_cell(line, cell) for cell in line] for line in table.lines()]
    heads = [escape(head) for head in table.heads]
    align = ["left" if is_words else "right" for is_words in table.are_words]
    return tabulate(lines, heads, tablefmt="pipe", disable_numparse=True, colalign=align)


def _cell(line: Sequence[str], text: str) -> str:
    """A cell of a measured row is bold."""
    is_bold = line[0] == MEASURED and text not in ("", "–")
    return f"**{escape(text)}**" if is_bold else escape(text)
