"""Result records from folders: every JSON file that says it is one, each content once, in a fixed order.

What cannot be read is not lost: it is listed with its reason.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any

from benchmarks.result import RecordError, Result, build_result
from reports.cycle_search import paused_cycle_search
from reports.formats.blocks import one_line
from reports.pretraining_logs import PretrainingLog, read_log

# What makes a JSON file a result record; conversions, pretraining runs and data sets keep other JSON beside them.
MARKS = {"task", "schema"}
LOG = "metrics.jsonl"
# Of a record's details, those that a report reads. The others are its bulk, and thousands of records are in memory.
KEPT_DETAILS = ("loss_curve", "curve", "best_epoch", "plan", "batch_norm")

Kind = type | tuple[type, ...]
NUMBER = (int, float)
KINDS: dict[str, Kind] = {
    "task": str,
    "protocol.id": str,
    "protocol.base": str,
    "protocol.settings": dict,
    "backbone.name": str,
    "backbone.arch": str,
    "backbone.digest": str,
    "backbone.input": dict,
    "backbone.provenance": dict,
    "seed": int,
    "engine": dict,
    "precision": str,
    "data.name": str,
    "data.classes": int,
    "code": dict,
    "environment": dict,
    "wall_seconds": NUMBER,
    "peak_memory_bytes": dict,
    "created": str,
    "details": dict,
}
FIELDS = [(field, attrgetter(field), kind) for field, kind in KINDS.items()]
COST_SETTINGS: dict[str, Kind] = {"method": str, "batch_size": int, "arch": str, "image_size": int}
COST_METRICS: dict[str, Kind] = dict.fromkeys(("memory_gib", "images_per_second", "hours_200_epochs"), NUMBER)


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
        place, start = folder.resolve().name, len(os.path.join(folder, ""))
        for path in _files(folder):
            name = f"{place}/{path[start:]}"
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
        with open(path, "rb", buffering=0) as file:  # a buffer would be filled once, and cost a third of the time
            return file.readall()
    except OSError as error:
        raise RecordError(f"{path}: expected a file that can be read, found {error.strerror}") from error


def _parse(text: bytes, path: str) -> Any:
    try:
        return json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path}: expected JSON, found {one_line(str(error))}; remove or rerun it") from error


def _is_record(content: Any) -> bool:
    return isinstance(content, dict) and content.keys() >= MARKS


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
    fixed = ((field, value_of(result), kind) for field, value_of, kind in FIELDS)
    for field, value, kind in chain(fixed, _further_values(result)):
        if not isinstance(value, kind):
            wanted = kind.__name__ if isinstance(kind, type) else "number"
            raise RecordError(f"{path}: {field}: expected {wanted}, found {value!r}; remove or rerun it")


def _further_values(result: Result) -> Iterator[tuple[str, Any, Kind]]:
    """Of what tables read, each value that some records have, and what it must be."""
    if result.task == "pretrain-cost":
        for group, values, kinds in (
            ("protocol.settings", result.protocol.settings, COST_SETTINGS),
            ("metrics", result.metrics, COST_METRICS),
        ):
            yield from ((f"{group}.{name}", values.get(name), kind) for name, kind in kinds.items())
    given = result.backbone.input
    yield "backbone.input.max_value", given.get("max_value", 1.0), NUMBER
    for name in ("mean", "std"):
        yield f"backbone.input.{name}", given.get(name, []), list
        yield from ((f"backbone.input.{name}[{i}]", value, NUMBER) for i, value in enumerate(given.get(name, [])))
    yield from ((f"protocol.differs[{i}]", item, str) for i, item in enumerate(result.protocol.differs))
    yield from ((f"data.skipped[{i}]", item, str) for i, item in enumerate(result.data.skipped))
    yield from ((f"peak_memory_bytes.{name}", size, int) for name, size in result.peak_memory_bytes.items())
    for name, split in result.data.splits.items():
        yield f"data.splits.{name}.images", split.images, int
        yield f"data.splits.{name}.list_sha256", split.list_sha256, str


def _order(item: tuple[str, tuple[Result, str]]) -> tuple[str, ...]:
    digest, (result, _) = item
    return (result.task, result.protocol.base, result.data.name, result.created, digest)
