"""Result records from folders: every JSON file that says it is one, each content once, in a fixed order.

What cannot be read is not lost: it is listed with its reason.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import msgspec

from benchmarks.result import RecordError, Result, parse_result
from reports.cost_table import check_costs
from reports.cycle_search import paused_cycle_search
from reports.formats.blocks import one_line
from reports.pretraining_logs import PretrainingLog, read_log

# What makes a JSON file a result record; conversions, pretraining runs and data sets keep other JSON beside them.
MARKS = {"task", "schema"}
LOG = "metrics.jsonl"


class EpochLoss(msgspec.Struct):
    """An epoch of a classifier's training, of which reports read the loss alone."""

    loss: float | None = None


class ReportedDetails(TypedDict, total=False):
    """Of a record's details, those that reports read. The others are its bulk, and thousands are in memory."""

    loss_curve: list[dict[str, float]]
    curve: list[EpochLoss]
    best_epoch: dict[str, float | str]
    plan: str
    batch_norm: str
    num_steps: int


class ReportedResult(Result, frozen=True, kw_only=True):
    """A record as reports keep it."""

    details: ReportedDetails = msgspec.field(default_factory=ReportedDetails)


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
        RecordError: a folder is missing or cannot be read, or in none is a whole record or a log of pretraining.
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
                    log = read_log(Path(path))
                    if log is not None:
                        logs.setdefault(Path(path).resolve(), log)
                    continue
                text = _read(path)
                result = _parse(text)
            except RecordError as error:
                left_out.append(LeftOut(name, one_line(str(error).removeprefix(f"{path}: "))))
                continue
            if result is None:
                continue
            _, first = found.setdefault(hashlib.sha256(text).hexdigest(), (result, name))
            if first != name:
                left_out.append(LeftOut(name, f"a copy of {first}"))
    if not found and not logs:
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
        raise RecordError(f"expected a file that can be read, found {error.strerror}") from error


def _parse(text: bytes) -> ReportedResult | None:
    """The record, or None for whole JSON that does not say that it is one."""
    try:
        result = parse_result(text, ReportedResult)
        check_costs(result)
    except RecordError:
        if _is_other_json(text):
            return None
        raise
    return result


def _is_other_json(text: bytes) -> bool:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return not (isinstance(content, dict) and content.keys() >= MARKS)


def _nothing_found(folders: Sequence[Path], left_out: Sequence[LeftOut]) -> str:
    places = ", ".join(str(folder) for folder in folders)
    if not left_out:
        return f"{places}: expected result records (*.json) or pretraining runs, found none; run mocobench bench first"
    first, more = left_out[0], len(left_out) - 1
    others = f" (and {more} more files)" if more else ""
    return f"{places}: expected a whole result record, found none; {first.file}: {first.reason}{others}"


def _order(item: tuple[str, tuple[Result, str]]) -> tuple[str, ...]:
    digest, (result, _) = item
    return (result.task, result.protocol.base, result.data.name, result.created, digest)
