"""What pretraining runs left behind: metrics.jsonl, one line an epoch, and run.json beside it, with every setting."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.result import RecordError

# What a report shows of run.json besides the settings; lists are of what stands in the brackets.
SHOWN: dict[str, type | list[type]] = {
    "recipe": dict,
    "recipe.augmentation": dict,
    "differs": [str],
    "data": dict,
    "sessions": [dict],
    "code": dict,
    "environment": dict,
    "wall_seconds": float,
}
# Benchmarks write a metrics.jsonl too; only one of pretraining has a value of these.
OWN = ("accuracy", "embedding_spread", "knn_top1")


@dataclass(frozen=True)
class PretrainingLog:
    """A run by its folder's name: its epochs, each a value by name with `epoch` among them, and its run.json."""

    name: str
    epochs: tuple[dict[str, float], ...]
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """What each session ran on: its precision, code and device, as far as they are known.

        The first version's run.json knows of one session, at its top level.
        """
        code, environment = self.record.get("code", {}), self.record.get("environment", {})
        only = {**self.record, **environment, "code": " ".join(map(str, code.values())) or None}
        sessions: list[dict[str, Any]] = self.record.get("sessions", [only])
        return sessions


def read_log(path: Path) -> PretrainingLog | None:
    """The log in this metrics.jsonl; None where nothing says that it is one of pretraining.

    Raises:
        RecordError: a file cannot be read, a line is no epoch, or run.json holds no recipe; the file, and the line's
            number, are named.
    """
    text, run = _read(path), path.with_name("run.json")
    if not run.exists() and not any(f'"{name}"' in text for name in OWN):
        return None
    epochs = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            values = json.loads(line)
            epochs.append({name: float(value) for name, value in values.items() if _is_number(value)})
            epochs[-1]["epoch"]
        except (ValueError, AttributeError, KeyError, OverflowError) as error:
            raise RecordError(f"{path}: line {number}: expected an epoch's values, found {line[:60]!r}") from error
    return PretrainingLog(path.resolve().parent.name, tuple(epochs), _read_run(run))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise RecordError(f"{path}: expected a file that can be read, found {error.strerror}") from error


def _read_run(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        record: dict[str, Any] = json.loads(_read(path))
        values = {name: record[name] for name in SHOWN if name in record} | {
            "recipe": record["recipe"],
            "recipe.augmentation": record["recipe"]["augmentation"],
        }
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RecordError(f"{path}: expected the record of a pretraining run, found {error!r}") from error
    wrong = [name for name, value in values.items() if not _fits(value, SHOWN[name])]
    if wrong:
        raise RecordError(f"{path}: {wrong[0]}: expected what pretrain writes, found {str(values[wrong[0]])[:60]!r}")
    return record


def _fits(value: object, kind: type | list[type]) -> bool:
    if isinstance(kind, list):
        return isinstance(value, list) and all(isinstance(item, kind[0]) for item in value)
    return _is_number(value) if kind is float else isinstance(value, kind)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
