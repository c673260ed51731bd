"""A report's blocks as one HTML page that needs nothing else: style, sorting and pictures are inside."""

import base64
import hashlib
from collections.abc import Sequence
from html import escape as escape_markup
from pathlib import Path

from reports.formats.blocks import Block, Heading, Notes, Paragraph, Picture, Table, one_line

ASSETS = Path(__file__).parent / "assets"


def render_html(blocks: Sequence[Block]) -> str:
    """The page. Every text in the blocks is taken as text; the browser is told to run no script but ours."""
    style, script = ((ASSETS / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    trusted = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{trusted}'"
    title = next((block.text for block in blocks if isinstance(block, Heading)), "Report")
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>",
        f"<style>\n{style}</style>",
    ]
    body = [_render_block(block) for block in blocks]
    parts = ["<!DOCTYPE html>", '<html lang="en">', "<head>", *head, "</head>", "<body>", "<main>", *body, "</main>"]
    return "\n".join([*parts, f"<script>{script}</script>", "</body>", "</html>"]) + "\n"


def escape(text: str) -> str:
    """Text that shows as itself, on one line, also inside an attribute."""
    return escape_markup(one_line(text))


def _render_block(block: Block) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{escape(block.text)}</h{block.level}>"
    if isinstance(block, Paragraph):
        return f"<p>{escape(block.text)}</p>"
    if isinstance(block, Notes):
        items = [f"<dt>{escape(note.label)}</dt><dd>{escape(note.text)}</dd>" for note in block.items]
        return "\n".join(['<dl class="card">', *items, "</dl>"])
    if isinstance(block, Picture):
        data = base64.b64encode(block.svg).decode()
        caption = escape(block.caption)
        source = f"data:image/svg+xml;base64,{data}"
        return f'<figure><img alt="{caption}" src="{source}"><figcaption>{caption}</figcaption></figure>'
    return _render_table(block)


def _render_table(table: Table) -> str:
    """A table that scrolls sideways on its own, so that the page stays as wide as the screen.

    The cell that names a row, the first after the kind, is its head: it stays in sight.
    """
    classes = ["" if is_words else ' class="number"' for is_words in table.are_words]
    heads = "".join(f'<th scope="col"{c}>{escape(head)}</th>' for c, head in zip(classes, table.heads, strict=True))
    lines = ['<div class="table" tabindex="0"><table>', f"<thead><tr>{heads}</tr></thead>", "<tbody>"]
    for row, line in zip(table.rows, table.lines(), strict=True):
        cells = [f"<td{c}>{escape(cell)}</td>" for c, cell in zip(classes, line, strict=True)]
        named = int(table.has_kinds)
        cells[named] = f'<th scope="row">{escape(line[named])}</th>'
        kind = f' class="{escape(row.kind)}"' if row.kind else ""
        lines.append(f"<tr{kind}>{''.join(cells)}</tr>")
    return "\n".join([*lines, "</tbody>", "</table></div>"])
