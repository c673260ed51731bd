"""What pretraining runs logged: metrics.jsonl below the folders, one line an epoch."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.result import RecordError


@dataclass(frozen=True)
class PretrainingLog:
    """A run by its folder's name, and its epochs: each a value by name, `epoch` among them."""

    name: str
    epochs: tuple[dict[str, float], ...]


def find_logs(folders: Sequence[Path]) -> tuple[PretrainingLog, ...]:
    """The logs below the folders, each once, by their names.

    Raises:
        RecordError: a line is no epoch; its file and number are named.
    """
    paths = {path.resolve(): path for folder in folders for path in sorted(folder.rglob("metrics.jsonl"))}
    return tuple(sorted((_read_log(path) for path in paths.values()), key=lambda log: log.name))


def _read_log(path: Path) -> PretrainingLog:
    epochs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            values = json.loads(line)
            epochs.append({name: float(value) for name, value in values.items() if _is_number(value)})
            epochs[-1]["epoch"]
        except (ValueError, AttributeError, KeyError) as error:
            raise RecordError(f"{path}: line {number}: expected an epoch's values, found {line[:60]!r}") from error
    return PretrainingLog(path.resolve().parent.name, tuple(epochs))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
