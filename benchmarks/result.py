"""Result: the record of one run of one task, as JSON in and out. Standard library only.

Reports read records through this module alone, so it must stay free of the machinery that makes them.
"""

import json
import math
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

SCHEMA = 1


class RecordError(ValueError):
    """A record, or a folder of them, that the user can mend. The message names the file."""


@dataclass(frozen=True)
class Metric:
    """How to read a metric: its unit (`%`, `points`, ...) and in which direction it is better."""

    title: str
    unit: str = "%"
    higher_is_better: bool = True

    def __post_init__(self) -> None:
        if not (isinstance(self.title, str) and isinstance(self.unit, str) and isinstance(self.higher_is_better, bool)):
            raise TypeError(f"{self}, expected a title, a unit and whether higher is better")


@dataclass(frozen=True)
class SplitIdentity:
    """One split of a data set: how many images and labelled objects, and a SHA-256 over its list."""

    images: int
    list_sha256: str
    objects: int | None = None


@dataclass(frozen=True)
class DataIdentity:
    """Which data a run used. `name` is the folder's name; the splits say what was really read."""

    name: str
    classes: int
    splits: dict[str, SplitIdentity]
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProtocolRecord:
    """The protocol of a run: `id` is `TASK/NAME@VERSION`, or `TASK/custom` when anything differs from `base`."""

    id: str
    base: str
    differs: tuple[str, ...]
    settings: dict[str, Any]

    @property
    def is_custom(self) -> bool:
        return bool(self.differs)


@dataclass(frozen=True)
class BackboneRecord:
    """Where the weights came from. `digest` identifies their values whatever file format carried them."""

    name: str
    arch: str
    digest: str
    input: dict[str, Any]
    provenance: dict[str, Any]


@dataclass(frozen=True)
class Result:
    """One run of one task. Metrics are in the unit that `metric_info` states, percent in [0, 100] by default."""

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
    peak_memory_bytes: dict[str, int]
    created: str
    command: tuple[str, ...]
    details: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    def to_json(self) -> str:
        """The record as indented JSON with a closing newline. Raises ValueError for NaN and infinities."""
        return json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"


_metric = cache(Metric)  # thousands of records share a few
FIELD_NAMES = frozenset(field.name for field in fields(Result))


def read_result(path: Path) -> Result:
    """Read one record.

    Raises:
        RecordError: not JSON, another schema, a missing or unknown field, or a metric that is not a finite number.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RecordError(f"{path}: expected a result record in JSON, found {error}; remove or rerun it") from error
    return build_result(record, path)


def build_result(record: Any, path: Path | str) -> Result:
    """The record that a file's JSON holds; `path` is for the message.

    Raises:
        RecordError: another schema, a missing or unknown field, or a metric that is not a finite number.
    """
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        found = record.get("schema") if isinstance(record, dict) else type(record).__name__
        raise RecordError(f"{path}: expected a result record of schema {SCHEMA}, found {found!r}; remove or rerun it")
    try:
        return _build_result(record)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise RecordError(f"{path}: expected a whole result record, found {error}; remove or rerun it") from error


def _build_result(record: dict[str, Any]) -> Result:
    missing, unknown = FIELD_NAMES - record.keys(), record.keys() - FIELD_NAMES
    if missing or unknown:
        raise ValueError(f"missing fields {sorted(missing)}, unknown fields {sorted(unknown)}")
    for name, value in record["metrics"].items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"metric {name} = {value!r}, not a finite number")
    if not record["metrics"].keys() <= record["metric_info"].keys():
        raise ValueError(f"metric_info of {sorted(record['metric_info'])}, not of {sorted(record['metrics'])}")
    protocol, data = record["protocol"], record["data"]
    splits = {name: SplitIdentity(**split) for name, split in data["splits"].items()}
    return Result(
        **{
            **record,
            "protocol": ProtocolRecord(**{**protocol, "differs": tuple(protocol["differs"])}),
            "backbone": BackboneRecord(**record["backbone"]),
            "metric_info": {name: _metric(**info) for name, info in record["metric_info"].items()},
            "data": DataIdentity(**{**data, "splits": splits, "skipped": tuple(data["skipped"])}),
            "command": tuple(record["command"]),
        }
    )
