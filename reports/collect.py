"""Result records from folders: every JSON file that says it is one, each content once, in a fixed order.

What cannot be read is not lost: it is listed with its reason.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.result import RecordError, Result, build_result
from reports.cycle_search import paused_cycle_search
from reports.pretraining_logs import PretrainingLog, read_log

# What makes a JSON file a result record; conversions, pretraining runs and data sets keep other JSON beside them.
MARKS = ("task", "schema")
LOG = "metrics.jsonl"
# Of a record's details, those that a report reads. The others are its bulk, and thousands of records are in memory.
KEPT_DETAILS = ("loss_curve", "curve", "best_epoch", "plan", "batch_norm")


@dataclass(frozen=True)
class LeftOut:
    """A file that is in no table, by its folder's name and its place there, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class Collection:
    """The records below some folders, the files that look like records but are none, and logs of pretraining."""

    results: tuple[Result, ...]
    left_out: tuple[LeftOut, ...] = ()
    logs: tuple[PretrainingLog, ...] = ()


@paused_cycle_search()
def collect_results(folders: Sequence[Path]) -> Collection:
    """The records below the folders, without copies of one another.

    Raises:
        RecordError: a folder is missing or cannot be read, or no file in them is a whole record.
    """
    found: dict[str, tuple[Result, str]] = {}
    logs: dict[Path, PretrainingLog] = {}
    left_out = []
    for folder in folders:
        place = folder.resolve().name
        for path in _files(folder):
            name = f"{place}/{os.path.relpath(path, folder)}"
            try:
                if path.endswith(LOG):
                    logs.setdefault(Path(path).resolve(), read_log(Path(path)))
                    continue
                text = _read(path)
                content = _parse(text, path)
                if not _is_record(content):
                    continue
                result = _to_result(content, path)
            except RecordError as error:
                left_out.append(LeftOut(name, str(error).removeprefix(f"{path}: ")))
                continue
            _, first = found.setdefault(hashlib.sha256(text).hexdigest(), (result, name))
            if first != name:
                left_out.append(LeftOut(name, f"a copy of {first}"))
    if not found:
        raise RecordError(_nothing_found(folders, left_out))
    ordered = sorted(found.items(), key=_order)
    results = tuple(result for _, (result, _) in ordered)
    in_order = sorted(logs.values(), key=lambda log: log.name)
    return Collection(results, tuple(sorted(left_out, key=lambda one: one.file)), tuple(in_order))


def _files(folder: Path) -> list[str]:
    """Records and logs. Paths as text: a Path for each of thousands of files would take longer than reading them."""
    if not folder.is_dir():
        kind = "a file" if folder.exists() else "nothing"
        raise RecordError(f"{folder}: expected a folder of result records, found {kind}; give the folder's name")

    def stop(error: OSError) -> None:
        raise RecordError(f"{error.filename}: expected a folder that can be read, found {error.strerror}") from error

    walk = os.walk(folder, onerror=stop)
    return sorted(
        os.path.join(place, name) for place, _, names in walk for name in names if name.endswith((".json", LOG))
    )


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise RecordError(f"{path}: expected a file that can be read, found {error.strerror}") from error


def _parse(text: bytes, path: str) -> Any:
    try:
        return json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path}: expected JSON, found {_one_line(error)}; remove or rerun it") from error


def _is_record(content: Any) -> bool:
    return isinstance(content, dict) and all(mark in content for mark in MARKS)


def _to_result(content: dict[str, Any], path: str) -> Result:
    details = content.get("details")
    if isinstance(details, dict):
        content = {**content, "details": {name: details[name] for name in KEPT_DETAILS if name in details}}
    result = build_result(content, path)
    _check_types(result, path)
    return result


def _nothing_found(folders: Sequence[Path], left_out: Sequence[LeftOut]) -> str:
    places = ", ".join(str(folder) for folder in folders)
    if not left_out:
        return f"{places}: expected result records (*.json), found none; run `mocobench bench` first"
    first, more = left_out[0], len(left_out) - 1
    others = f" (and {more} more files)" if more else ""
    return f"{places}: expected a whole result record, found none; {first.file}: {first.reason}{others}"


def _check_types(result: Result, path: str) -> None:
    """The record's fields are there (build_result saw to it); a table also relies on what they hold."""
    expected: list[tuple[str, Any, type | tuple[type, ...]]] = [
        ("task", result.task, str),
        ("protocol.id", result.protocol.id, str),
        ("protocol.base", result.protocol.base, str),
        ("protocol.settings", result.protocol.settings, dict),
        ("backbone.name", result.backbone.name, str),
        ("backbone.arch", result.backbone.arch, str),
        ("backbone.digest", result.backbone.digest, str),
        ("backbone.input", result.backbone.input, dict),
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
        ("details", result.details, dict),
    ]
    if result.task == "pretrain-cost":
        settings, metrics = result.protocol.settings, result.metrics
        kinds = {"method": str, "batch_size": int, "arch": str, "image_size": int}
        expected += [(f"protocol.settings.{name}", settings.get(name), kind) for name, kind in kinds.items()]
        names = ("memory_gib", "images_per_second", "hours_200_epochs")
        expected += [(f"metrics.{name}", metrics.get(name), (int, float)) for name in names]
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


def _order(item: tuple[str, tuple[Result, str]]) -> tuple[str, ...]:
    digest, (result, _) = item
    return (result.task, result.protocol.base, result.data.name, result.created, digest)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
