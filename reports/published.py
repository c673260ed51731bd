"""Published numbers: the rows of reports/published/*.toml, checked and typed.

A file is one paper or other source. It holds `tables`, each with `rows`; a row takes what it does not say from its
table, so a table reads like the paper's. Different protocols never share an id.
"""

import sys
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent / "published"

# Read in the authors' own text or code; read in a transcription that agrees with them where both speak; not checked.
CHECKED = ("original", "transcription", "unchecked")
# In a report: beside measured rows and as a reference for what is not comparable; beside measured rows of the same
# protocol only; in the comparison of MoCo v2 with SimCLR; not shown.
SHOW = ("headline", "beside", "comparison", "data")
# Their own; measured again by others; in the text of others, which does not say where it comes from or quotes it.
ORIGINS = ("original", "re-run by ", "printed by ")


@dataclass(frozen=True)
class Source:
    """A paper, or another text that prints numbers."""

    short: str
    title: str
    authors: str = ""
    arxiv: str = ""
    url: str = ""

    @property
    def year(self) -> str:
        """The year of an arXiv identifier, which begins with it; nothing for other sources."""
        return f"20{self.arxiv[:2]}" if self.arxiv else ""


@dataclass(frozen=True)
class Pretraining:
    """How the backbone of a row was pretrained, as far as its source says. None: not said, or it does not apply."""

    epochs: int | None = None
    batch: int | None = None
    mlp: bool | None = None
    aug_plus: bool | None = None
    cos: bool | None = None
    temperature: float | None = None
    lr_rule: str | None = None
    symmetric: bool | None = None
    width: str | None = None
    images: str | None = None


@dataclass(frozen=True)
class Published:
    """One published row. `metrics`, `checked` and `spread` go by our metric names; percent, or as the name says.

    `spread` is the standard deviation over `trials`; `samples` are the trials themselves where they are printed,
    and the row's value and spread are then computed from them. `recipe` is ours that repeats the pretraining.
    """

    method: str
    protocol: str
    metrics: dict[str, float]
    checked: dict[str, str]
    source: Source
    table: str
    origin: str = "original"
    case: str = ""
    recipe: str = ""
    pretraining: Pretraining = Pretraining()
    trials: int | None = None
    spread: dict[str, float] | None = None
    samples: tuple[float, ...] = ()
    show: str = "beside"
    note: str = ""

    @property
    def task(self) -> str:
        return self.protocol.split("/")[0]


@cache
def load_published() -> tuple[Published, ...]:
    """Every published row, in the order of the files and of their tables."""
    return tuple(row for path in _paths() for row in read_rows(path))


def read_rows(path: Path) -> tuple[Published, ...]:
    """The rows of one file.

    Raises:
        ValueError: an unknown or missing key, a count that does not fit, or a word that is not in its list; the
            file, the table and the row's number are named.
    """
    text = _parse(path)
    rows = []
    for table in text["tables"]:
        shared = {key: value for key, value in table.items() if key != "rows"}
        for number, row in enumerate(table["rows"], start=1):
            try:
                rows.append(_build_row({**shared, **row}, _source(text)))
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}: {table.get('table')}, row {number}: {error}") from error
    return tuple(rows)


def _paths() -> list[Path]:
    return sorted(FOLDER.glob("*.toml"))


def _parse(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return tomllib.load(file)


def _source(text: dict[str, Any]) -> Source:
    return Source(**{f.name: text[f.name] for f in fields(Source) if f.name in text})


def _build_row(row: dict[str, Any], source: Source) -> Published:
    names = row.pop("metrics")
    samples = tuple(row.pop("samples", ()))
    if samples:
        if len(names) != 1 or "values" in row or "spread" in row or "trials" in row:
            raise ValueError("samples: expected one metric, without values, spread or trials")
        row |= {"values": [fmean(samples)], "spread": [stdev(samples)], "trials": len(samples)}
    checked = row.pop("checked")
    pretraining = {f.name: row.pop(f.name) for f in fields(Pretraining) if f.name in row}
    built = Published(
        metrics=_by_metric(names, row.pop("values")),
        checked=_by_metric(names, [checked] * len(names) if isinstance(checked, str) else checked),
        spread=_by_metric(names, row.pop("spread")) if "spread" in row else None,
        pretraining=Pretraining(**pretraining),
        samples=samples,
        source=source,
        **row,
    )
    _check_words(built)
    return built


def _by_metric(names: list[str], values: list[Any]) -> dict[str, Any]:
    return dict(zip(names, values, strict=True))


def _check_words(row: Published) -> None:
    for mark in row.checked.values():
        if mark not in CHECKED:
            raise ValueError(f"checked: expected one of {CHECKED}, found {mark!r}")
    if row.show not in SHOW:
        raise ValueError(f"show: expected one of {SHOW}, found {row.show!r}")
    if not row.origin.startswith(ORIGINS):
        raise ValueError(f"origin: expected one of {ORIGINS}, found {row.origin!r}")
    task, _, name = row.protocol.partition("/")
    if not task or "@" not in name:
        raise ValueError(f"protocol: expected TASK/NAME@VERSION, found {row.protocol!r}")
