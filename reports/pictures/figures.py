"""How pictures look: sizes, colours, labels and bytes that are the same every time; good in print and on dark pages."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by colour-blind eyes; markers and dashes tell them apart in black and white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[str, ...] = ("-", "--", "-.", ":")
PUBLISHED_INK, PUBLISHED_BAND = "#555555", "#cccccc"
PANEL_INCHES = (4.2, 3.2)
MOST_PANELS, MOST_LINES = 6, 12
LABEL_LENGTH = 32
# Text stays text, also with a pair of $; ids are the same in every run; the sheet is white wherever it is shown.
SETTINGS: Any = {
    "svg.hashsalt": "mocobench",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 9,
    "grid.alpha": 0.3,
}


def look_of(number: int) -> dict[str, Any]:
    """The colour and marker of the so-manieth thing; with every round of colours the markers move on by one."""
    turn = number // len(COLOURS)
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[(number + turn) % len(MARKERS)]
    return {"color": colour, "marker": marker, "linestyle": "none"}


def panels_of(number: int) -> tuple["Figure", list["Axes"]]:
    """A figure of so many panels, at most two side by side: three would be too small on a page."""
    from matplotlib.figure import Figure

    columns = min(number, 2)
    rows = -(-number // columns)
    figure = Figure(figsize=(PANEL_INCHES[0] * columns, PANEL_INCHES[1] * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in axes[number:]:
        spare.remove()
    return figure, axes[:number]


def legend_below(figure: "Figure", axes: Sequence["Axes"]) -> None:
    """One legend for all panels, each name once, under them, where it hides no mark."""
    named: dict[str, Any] = {}
    for axis in axes:
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True):
            named.setdefault(name, handle)
    names = list(named)[:MOST_LINES]
    handles = [named[name] for name in names]
    figure.legend(handles, names, loc="outside lower center", ncols=3, fontsize=8, frameon=False)


def not_shown(panels: int, lines: int) -> str:
    """What a caption adds where there are more panels or lines than a picture holds."""
    counts = ((panels, MOST_PANELS, "panels"), (lines, MOST_LINES, "lines a panel"))
    said = [f"the first {most} of {number} {what}" for number, most, what in counts if number > most]
    return f" ({', '.join(said)})" if said else ""


def clean(text: str) -> str:
    """A record's text for a label: short, in letters that the font has, not begun with _, which a legend hides."""
    shown = "".join(char if char.isprintable() and ord(char) < 0x250 else "?" for char in text)
    shown = shown if len(shown) <= LABEL_LENGTH else f"{shown[: LABEL_LENGTH - 1]}…"
    return f" {shown}" if shown.startswith("_") else shown


def saved(figure: "Figure", format: str) -> bytes:
    picture = io.BytesIO()
    metadata = {"Date": None} if format == "svg" else {"Software": None}
    figure.savefig(picture, format=format, dpi=110, facecolor="white", metadata=metadata)
    return picture.getvalue()
