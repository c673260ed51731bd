"""A report's blocks as LaTeX to paste into a paper: sections, booktabs tables and lists."""

import re
from collections.abc import Iterable, Sequence

from reports.formats.blocks import MEASURED, Block, Heading, Notes, Paragraph, Picture, Table, one_line

OPENING = (
    r"% Needs \usepackage{array,booktabs,graphicx}; UTF-8, any engine. Pictures are sought from the document's folder."
)
# A table as it is, or as wide as the text where it is wider.
FITTED = r"\noindent\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
# Words of more characters are broken into lines of so many.
LONG_WORDS = 26
LINE_WIDTH = r">{\raggedright\arraybackslash}p{12em}"
SECTIONS = {1: "section", 2: "subsection"}

# What LaTeX takes for a command, and our own signs, which not every font has.
SIGNS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\char34}",  # \textquotedbl is not in LaTeX's first font encoding
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    **{char: f"\\{char}" for char in "&%$#_"},
    "–": "--",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "→": r"$\to$",
    "✓": r"$\surd$",
    "●": r"$\bullet$",
    "◐": r"$\odot$",
    "○": r"$\circ$",
    "★": r"$\star$",
    "☆": r"$\diamond$",
}
# In a file's name, characters for which LaTeX has other uses, under the names that it has for them since 2020.
NAMES = {"%": "percent", "#": "hash", "&": "ampersand", "$": "dollar", "~": "tilde", "^": "circumflex"}
NAMES |= {"\\": "backslash", "{": "left_brace", "}": "right_brace"}
FILE_SIGNS = {char: f"\\csname c_{name}_str\\endcsname " for char, name in NAMES.items()} | {" ": r"\space "}
# Of Latin-1, what the first font encoding lacks.
LACKING = "«»ÐÞðþ"
# Some pairs of characters are one sign in LaTeX: -- a dash, ?` a turned mark.
LIGATURES = re.compile(r"-(?=-)|([?!])(?=`)")


def render_latex(blocks: Sequence[Block]) -> str:
    """The blocks with a blank line between them. Every text in them is taken as text, never as a command."""
    return "\n\n".join([OPENING, *(_render_block(block) for block in blocks)]) + "\n"


def escape(text: str) -> str:
    """Text that prints as itself, on one line; a character beyond Latin-1 is printed as its code."""
    line = one_line(text)
    return "".join(_sign(char) for char in LIGATURES.sub(lambda found: found[0] + "\x00", line))


def _sign(char: str) -> str:
    if char == "\x00":
        return "{}"
    if char in SIGNS:
        return SIGNS[char]
    return char if ord(char) < 0x100 and char not in LACKING else f"[U+{ord(char):04X}]"


def _render_block(block: Block) -> str:
    if isinstance(block, Heading):
        return f"\\{SECTIONS.get(block.level, 'subsubsection')}*{{{escape(block.text)}}}"
    if isinstance(block, Paragraph):
        return escape(block.text)
    if isinstance(block, Notes):
        items = [f"  \\item \\textbf{{{escape(note.label)}}}: {escape(note.text)}" for note in block.items]
        return "\n".join([r"\begin{itemize}", *items, r"\end{itemize}"])
    if isinstance(block, Picture):
        file = block.place.removesuffix(".svg") + ".png"  # LaTeX reads no SVG
        place = "".join(FILE_SIGNS.get(char, char) for char in file)
        return f"\\noindent\\includegraphics[width=\\linewidth]{{{place}}}\n\n{escape(block.caption)}"
    return _render_table(block)


def _render_table(table: Table) -> str:
    lines = [_line(escape(head) for head in table.heads), r"\midrule"]
    lines += [_line(_cell(line, cell) for cell in line) for line in table.lines()]
    begin = f"\\begin{{tabular}}{{@{{}}{_columns(table)}@{{}}}}"
    return "\n".join([FITTED, begin, r"\toprule", *lines, r"\bottomrule", r"\end{tabular}}"])


def _columns(table: Table) -> str:
    """Numbers to the right; words to the left, in several lines where they are long and can be broken."""
    columns = []
    for is_words, *cells in zip(table.are_words, table.heads, *table.lines(), strict=True):
        longest_word = max(len(word) for cell in cells for word in cell.split() or [""])
        is_broken = max(map(len, cells)) > LONG_WORDS and longest_word < LONG_WORDS / 2
        columns.append((LINE_WIDTH if is_broken else "l") if is_words else "r")
    return "".join(columns)


def _line(cells: Iterable[str]) -> str:
    return "  " + " & ".join(cells) + r" \\"


def _cell(line: Sequence[str], text: str) -> str:
    """A cell of a measured row is bold; one that starts a line with [ must not be taken for an option of the last."""
    shown = escape(text)
    if line[0] == MEASURED and text not in ("", "–"):
        return f"\\textbf{{{shown}}}"
    return f"{{}}{shown}" if shown.startswith(("[", "*")) else shown
