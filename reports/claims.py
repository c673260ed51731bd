"""Claims as data: reports/claims/*.toml, each that one side is above another in a metric of a protocol."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from reports.published import Pretraining, Published

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent / "claims"
SIDE_KEYS = {"recipe", "source", "table", "method", *(field.name for field in fields(Pretraining))}


@dataclass(frozen=True)
class Claim:
    """`higher` is above `lower`: each the values that a measured or a published row must have.

    `tolerance`, in points: a published number without a spread is taken as known to that.
    """

    name: str
    text: str
    protocol: str
    metric: str
    higher: dict[str, Any]
    lower: dict[str, Any]
    tolerance: float


@cache
def load_claims() -> tuple[Claim, ...]:
    """Every claim, in the order of the files."""
    return tuple(claim for path in sorted(FOLDER.glob("*.toml")) for claim in read_claims(path))


def read_claims(path: Path) -> tuple[Claim, ...]:
    """The claims of one file.

    Raises:
        ValueError: an unknown or missing key; the file and the claim's number are named.
    """
    with path.open("rb") as file:
        content = tomllib.load(file)
    claims = []
    for number, entry in enumerate(content["claims"], start=1):
        try:
            claim = Claim(**entry)
        except TypeError as error:
            raise ValueError(f"{path}: claim {number}: {error}") from error
        for side in (claim.higher, claim.lower):
            if not side or not side.keys() <= SIDE_KEYS:
                raise ValueError(f"{path}: claim {number}: a side: expected keys of {sorted(SIDE_KEYS)}, found {side}")
        claims.append(claim)
    return tuple(claims)


def published_side(claim: Claim, side: dict[str, Any], published: Sequence[Published]) -> list[Published]:
    """The published rows that a side names, those with the most trials first.

    A recipe's rows are those under the claim's protocol. Others are named by their source, and only there may the
    protocol be another: SimCLR is probed in its own way.
    """
    rows = [row for row in published if claim.metric in row.metrics and row.show != "comparison" and _has(row, side)]
    if "recipe" in side:
        rows = [row for row in rows if row.protocol == claim.protocol]
    return sorted(rows, key=lambda row: -(row.trials or 0))


def _has(row: Published, side: dict[str, Any]) -> bool:
    found = {"recipe": row.recipe, "source": row.source.short, "table": row.table, "method": row.method}
    return all(value == (found[key] if key in found else getattr(row.pretraining, key)) for key, value in side.items())
