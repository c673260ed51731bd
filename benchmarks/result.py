"""Result: the record of one run of one task, as JSON in and out.

The types below are the schema: msgspec holds each record that is read to them, and says what in it breaks them.
Reports read records through this module alone, so it must stay free of the machinery that makes them.
"""

import json
import math
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypedDict, TypeVar

import msgspec

SCHEMA: Final = 1
# A number of bytes, images or classes. JSON can hold integers that no other number type can.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
NOT_FINITE = re.compile(r'("[^"]*":\s*)?-?(NaN|Infinity)')


class RecordError(ValueError):
    """A record, or a folder of them, that the user can mend. The message names the file."""


class Metric(msgspec.Struct, frozen=True):
    """How to read a metric: its unit (`%`, `points`, ...) and in which direction it is better."""

    title: str
    unit: str = "%"
    higher_is_better: bool = True


class SplitIdentity(msgspec.Struct, frozen=True):
    """One split of a data set: how many images and labelled objects, and a SHA-256 over its list."""

    images: Count
    list_sha256: str
    objects: Count | None = None


class DataIdentity(msgspec.Struct, frozen=True):
    """Which data a run used. `name` is the folder's name; the splits say what was really read."""

    name: str
    classes: Count
    splits: dict[str, SplitIdentity]
    skipped: tuple[str, ...] = ()


class ProtocolRecord(msgspec.Struct, frozen=True):
    """The protocol of a run: `id` is `TASK/NAME@VERSION`, or `TASK/custom` when anything differs from `base`."""

    id: str
    base: str
    differs: tuple[str, ...]
    settings: dict[str, Any]

    @property
    def is_custom(self) -> bool:
        return bool(self.differs)


class InputRecord(TypedDict, total=False):
    """What the backbone takes: nothing is said of what sees no images."""

    mean: list[float]
    std: list[float]
    channel_order: str
    max_value: float
    stride_in_1x1: bool


class BackboneRecord(msgspec.Struct, frozen=True):
    """Where the weights came from. `digest` identifies their values whatever file format carried them."""

    name: str
    arch: str
    digest: str
    input: InputRecord
    provenance: dict[str, Any]


class Result(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run of one task. Metrics are in the unit that `metric_info` states, percent in [0, 100] by default.

    Raises on construction:
        ValueError: a metric that is not a finite number, or that `metric_info` does not name.
    """

    task: str
    protocol: ProtocolRecord
    backbone: BackboneRecord
    seed: int
    engine: dict[str, str]
    precision: str
    metrics: dict[str, float]
    metric_info: dict[str, Metric]
    data: DataIdentity
    code: dict[str, str]
    environment: dict[str, Any]
    wall_seconds: float
    peak_memory_bytes: dict[str, Count]
    created: str
    command: tuple[str, ...]
    details: Mapping[str, Any] = msgspec.field(default_factory=dict)
    schema: Literal[1] = SCHEMA

    def __post_init__(self) -> None:
        for name, value in self.metrics.items():
            if not math.isfinite(value):
                raise ValueError(f"metric {name} = {value!r}, not a finite number")
        if not self.metrics.keys() <= self.metric_info.keys():
            raise ValueError(f"metric_info of {sorted(self.metric_info)}, not of {sorted(self.metrics)}")

    def to_json(self) -> str:
        """The record as indented JSON with a closing newline. Raises ValueError for NaN and infinities."""
        return json.dumps(self, default=msgspec.structs.asdict, indent=2, allow_nan=False) + "\n"


R = TypeVar("R", bound=Result)


def read_result(path: Path) -> Result:
    """Read one record.

    Raises:
        RecordError: it cannot be read, or is no record: as `parse_result` says.
    """
    try:
        return parse_result(path.read_bytes(), Result)
    except OSError as error:
        raise RecordError(f"{path}: expected a file that can be read, found {error.strerror}") from error
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from error


def parse_result(text: bytes, kind: type[R]) -> R:
    """The record that a file holds, as a Result or a subclass that keeps less of it.

    Raises:
        RecordError: not JSON, another schema, a missing or unknown field, a value of another type, or a metric that is
            not a finite number. The message leaves it to the caller to name the file.
    """
    try:
        return _decoder(kind).decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecordError(f"expected {_explain(text, error)}; remove or rerun it") from error


@cache
def _decoder(kind: type[R]) -> "msgspec.json.Decoder[R]":
    return msgspec.json.Decoder(kind)


def _explain(text: bytes, error: Exception) -> str:
    """What was expected and found, in the words of a record's reader."""
    try:
        decoded = text.decode()
        content = json.loads(decoded)
    except (ValueError, RecursionError) as not_json:
        return f"JSON, found {not_json}"
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else type(content).__name__
        return f"a result record of schema {SCHEMA}, found {found!r}"
    not_finite = NOT_FINITE.search(decoded)
    if not_finite is not None and type(error) is msgspec.DecodeError:  # what Python reads and JSON does not have
        return f"finite numbers, found {not_finite[0]}"
    return f"a whole result record, but {in_words(error)}"


def in_words(error: Exception) -> str:
    """What msgspec says of a value that breaks its schema, the field first."""
    what, _, place = str(error).partition(" - at `$.")
    return f"{place.rstrip('`')}: {what[0].lower()}{what[1:]}" if place else what
