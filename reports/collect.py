"""Result records from folders: every JSON file that says it is one, each content once, in a fixed order."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.result import RecordError, Result, read_result

# What makes a JSON file a result record; conversions, pretraining runs and data sets keep other JSON beside them.
MARKS = ("task", "schema")


def collect_results(folders: Sequence[Path]) -> tuple[Result, ...]:
    """The records below the folders, without copies of one another.

    Raises:
        RecordError: a folder is missing or holds no record, or a JSON file is broken; the message names it.
    """
    found: dict[str, Result] = {}
    for folder in folders:
        for result in _read_folder(folder):
            found.setdefault(result.to_json(), result)
    return tuple(sorted(found.values(), key=_order))


def _read_folder(folder: Path) -> list[Result]:
    if not folder.is_dir():
        kind = "a file" if folder.exists() else "nothing"
        raise RecordError(f"{folder}: expected a folder of result records, found {kind}; give the folder's name")
    paths = [path for path in sorted(folder.rglob("*.json")) if path.is_file() and _is_record(path)]
    if not paths:
        raise RecordError(f"{folder}: expected result records (*.json), found none; run `mocobench bench` first")
    results = []
    for path in paths:
        result = read_result(path)
        _check_types(result, path)
        results.append(result)
    return results


def _is_record(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"{path}: expected JSON, found {_one_line(error)}; remove or rerun it") from error
    return isinstance(content, dict) and all(mark in content for mark in MARKS)


def _check_types(result: Result, path: Path) -> None:
    """The record's fields are there (read_result saw to it); a table also relies on what they hold."""
    expected: list[tuple[str, Any, type | tuple[type, ...]]] = [
        ("task", result.task, str),
        ("protocol.id", result.protocol.id, str),
        ("protocol.base", result.protocol.base, str),
        ("protocol.settings", result.protocol.settings, dict),
        ("backbone.name", result.backbone.name, str),
        ("backbone.arch", result.backbone.arch, str),
        ("backbone.digest", result.backbone.digest, str),
        ("backbone.provenance", result.backbone.provenance, dict),
        ("seed", result.seed, int),
        ("engine", result.engine, dict),
        ("precision", result.precision, str),
        ("data.name", result.data.name, str),
        ("data.classes", result.data.classes, int),
        ("code", result.code, dict),
        ("environment", result.environment, dict),
        ("wall_seconds", result.wall_seconds, (int, float)),
        ("peak_memory_bytes", result.peak_memory_bytes, dict),
        ("created", result.created, str),
    ]
    expected += [(f"protocol.differs[{i}]", item, str) for i, item in enumerate(result.protocol.differs)]
    expected += [(f"data.skipped[{i}]", item, str) for i, item in enumerate(result.data.skipped)]
    expected += [(f"peak_memory_bytes.{name}", size, int) for name, size in result.peak_memory_bytes.items()]
    for name, split in result.data.splits.items():
        expected.append((f"data.splits.{name}.images", split.images, int))
        expected.append((f"data.splits.{name}.list_sha256", split.list_sha256, str))
    for field, value, kind in expected:
        if not isinstance(value, kind):
            wanted = kind.__name__ if isinstance(kind, type) else "number"
            raise RecordError(f"{path}: {field}: expected {wanted}, found {value!r}; remove or rerun it")


def _order(result: Result) -> tuple[str, ...]:
    return (result.task, result.protocol.base, result.data.name, result.created, result.to_json())


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
