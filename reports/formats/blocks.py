"""What a report is made of. Every text is plain; a format escapes it."""

from dataclasses import dataclass

MEASURED = "measured"
PUBLISHED = "published"
PLAIN = ""  # in tables where there is nothing to tell apart


def one_line(text: str) -> str:
    """The text on one line, without the unprintable: what every format escapes first."""
    if not text.isprintable():
        text = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(text.split())


@dataclass(frozen=True)
class Heading:
    level: int
    text: str


@dataclass(frozen=True)
class Paragraph:
    text: str


@dataclass(frozen=True)
class Note:
    """One labelled line under a table."""

    label: str
    text: str


@dataclass(frozen=True)
class Notes:
    items: tuple[Note, ...]


@dataclass(frozen=True)
class Row:
    """One line of a table; `kind` says whether we measured it (MEASURED) or someone published it (PUBLISHED)."""

    kind: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Column heads, the rows, and how many columns at the left and at the right hold words; between them, numbers."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    num_left_words: int = 2
    num_right_words: int = 2

    @property
    def has_kinds(self) -> bool:
        """Whether there is anything to tell apart, and a first column that says it."""
        return any(row.kind for row in self.rows)

    @property
    def heads(self) -> tuple[str, ...]:
        """All column heads, that of the kind included."""
        return ("", *self.columns) if self.has_kinds else self.columns

    @property
    def are_words(self) -> tuple[bool, ...]:
        """For each head whether its column holds words."""
        last = len(self.columns) - self.num_right_words
        own = tuple(not self.num_left_words <= number < last for number in range(len(self.columns)))
        return (True, *own) if self.has_kinds else own

    def lines(self) -> list[tuple[str, ...]]:
        """The rows as they are printed, the kind first where there is one."""
        return [(row.kind, *row.cells) if self.has_kinds else row.cells for row in self.rows]


@dataclass(frozen=True)
class Picture:
    """A drawing in two formats, and the place of its SVG as seen from the report where it is a file of its own."""

    name: str
    caption: str
    svg: bytes
    png: bytes
    place: str = ""


Block = Heading | Paragraph | Table | Notes | Picture
