"""The files of records: what they are called, writing one whole or not at all, and finding that of an equal run."""

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.protocol import data_differences, settings_of
from benchmarks.result import DataIdentity, Result, read_result
from benchmarks.run import Plan, load_task
from mocobench.runtime.files import write_text

if TYPE_CHECKING:
    from transfer.backbone import Backbone

# Of each name in a file's name: with all of them, and what a temporary name adds, it stays below 255 bytes.
SLUG_LENGTH = 50


def result_path(results_dir: Path, result: Result) -> Path:
    """Where a record lies: `TASK_PROTOCOL_BACKBONE-DIGEST_DATA-LISTS_seedN.json`.

    Runs that differ in none of these replace one another. PROTOCOL has its version but the first, a short hash of
    changed settings, and names an engine that is not our own, a precision other than fp32, and the images of a pass
    where batches were split. LISTS is a short hash of the lists of images.
    """
    protocol = _slug(result.protocol.base.split("/", 1)[1].removesuffix("@1"))
    if result.protocol.is_custom:
        protocol += f"-custom-{_short_hash(result.protocol.differs)}"
    if result.engine["name"] == "detectron2":
        protocol += "-detectron2"
    if result.precision != "fp32":
        protocol += f"-{result.precision}"
    if "images_per_pass" in result.details:
        protocol += f"-pass{result.details['images_per_pass']}"
    backbone = f"{_slug(result.backbone.name)}-{result.backbone.digest[:8]}"
    lists = tuple(f"{name} {split.list_sha256}" for name, split in sorted(result.data.splits.items()))
    data = "-".join([_slug(result.data.name), *([_short_hash(lists)] if lists else [])])
    return results_dir / ("_".join([result.task, protocol, backbone, data, f"seed{result.seed}"]) + ".json")


def write_result(results_dir: Path, result: Result) -> Path:
    """Write a record as JSON, whole or not at all, and return its path.

    Raises:
        UserError: the folder cannot be written.
    """
    path = result_path(results_dir, result)
    write_text(path, result.to_json())
    return path


def find_result(results_dir: Path, plan: Plan, *, backbone: "Backbone", backbone_name: str, data: Path) -> Path | None:
    """The record of an equal run, if the folder has one: same settings, backbone, seed, engine, precision and data.

    The data is read, as the task itself reads it, only where a record differs in nothing else. All ranks answer as
    rank 0 does.

    Raises:
        RecordError: a file in the folder that looks like a record is none.
        UserError: whatever the task finds wrong with its data.
    """
    from mocobench.runtime.distributed import gather_objects

    settings = json.loads(json.dumps(settings_of(plan.protocol)))  # as a record keeps them
    there: dict[Path, DataIdentity] = {}
    for path in sorted(results_dir.glob(f"{plan.task}_*_seed{plan.context.seed}.json")):
        found = read_result(path)
        asked = {
            "protocol": (plan.protocol.id, settings, plan.differs + data_differences(plan.protocol, found.data)),
            "backbone": (backbone_name, backbone.digest),
            "data": data.resolve().name,
            "run": (plan.context.engine, plan.context.precision, plan.context.images_per_pass),
        }
        if asked == {
            "protocol": (found.protocol.base, found.protocol.settings, found.protocol.differs),
            "backbone": (found.backbone.name, found.backbone.digest),
            "data": found.data.name,
            "run": (found.engine["name"], found.precision, found.details.get("images_per_pass")),
        }:
            there[path] = found.data
    there = gather_objects(there)[0]
    if not there:
        return None
    identity = load_task(plan.task).identify(data, plan.protocol, plan.context)
    return next((path for path, recorded in there.items() if recorded == identity), None)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower())[:SLUG_LENGTH].strip("-.") or "unnamed"


def _short_hash(lines: tuple[str, ...]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:6]
