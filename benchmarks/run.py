"""Run a task: find it by its name, measure, stamp the record, write it whole or not at all."""

import hashlib
import importlib
import pkgutil
import re
import time
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import mocobench
from benchmarks import tasks
from benchmarks.context import RunContext
from benchmarks.protocol import choose_protocol, data_differences, override, protocol_record
from benchmarks.result import BackboneRecord, Result
from mocobench.runtime.errors import UserError
from mocobench.runtime.files import write_text

if TYPE_CHECKING:
    from transfer.backbone import Backbone


def task_names() -> tuple[str, ...]:
    """The tasks there are, as typed on the command line: one for each module in `benchmarks.tasks`."""
    return tuple(sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(tasks.__path__)))


def load_task(name: str) -> ModuleType:
    """The module of a task.

    Raises:
        UserError: no such task; those that exist are listed.
    """
    if name not in task_names():
        raise UserError(f"task {name}: expected one of {', '.join(task_names())}")
    return importlib.import_module(f"benchmarks.tasks.{name.replace('-', '_')}")


def choose_engine(name: str, engines: tuple[str, ...]) -> str:
    """The engine that runs; `auto` is the task's first.

    Raises:
        UserError: the task does not run on that engine in this version.
    """
    if name == "auto":
        return engines[0]
    if name in engines:
        return name
    why = "; this version drives the embedded engine only" if name == "detectron2" else ""
    raise UserError(f"--engine {name}: expected auto or {' or '.join(engines)}{why}")


def run_task(
    task: str,
    *,
    backbone: "Backbone",
    backbone_name: str,
    data: Path,
    protocol_name: str,
    overrides: dict[str, Any],
    engine: str,
    context: RunContext,
    command: tuple[str, ...],
) -> Result:
    """Measure a backbone on one task and return the stamped record.

    `overrides` are changed settings of the protocol by name. They, and data other than the protocol's, make the
    record's protocol `custom` and are listed in it.

    Raises:
        UserError: an unknown task, protocol or engine, or whatever the task finds wrong with its data.
    """
    from mocobench.runtime.environment import code_version, environment_stamp, peak_memory_bytes, reset_peak_memory
    from mocobench.runtime.seeds import seed_everything

    module = load_task(task)
    protocol, differs = override(choose_protocol(module.PROTOCOLS, protocol_name), overrides)
    chosen_engine = choose_engine(engine, module.ENGINES)
    seed_everything(context.seed)
    reset_peak_memory(context.device)
    code = code_version()  # before the run: the files may change while it lasts
    started = time.monotonic()
    measurement = module.run(backbone, data, protocol, context)
    wall_seconds = time.monotonic() - started
    differs += data_differences(protocol, measurement.data)
    return Result(
        task=task,
        protocol=protocol_record(task, protocol, differs),
        backbone=backbone_record(backbone, backbone_name),
        seed=context.seed,
        engine=_engine_record(chosen_engine),
        precision=context.precision,
        metrics=measurement.metrics,
        metric_info=measurement.metric_info,
        data=measurement.data,
        code=code,
        environment=environment_stamp(context.device),
        wall_seconds=wall_seconds,
        peak_memory_bytes=peak_memory_bytes(context.device),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=command,
        details=measurement.details,
    )


def backbone_record(backbone: "Backbone", name: str) -> BackboneRecord:
    """A backbone as a record keeps it."""
    return BackboneRecord(
        name=name,
        arch=backbone.arch,
        digest=backbone.digest,
        input=backbone.input.to_dict(),
        provenance=backbone.provenance.to_dict(),
    )


def _engine_record(name: str) -> dict[str, str]:
    # The embedded engine is part of this package; any other is a package of its own.
    version = mocobench.__version__ if name == "embedded" else metadata.version(name)
    return {"name": name, "version": version}


def result_path(results_dir: Path, result: Result) -> Path:
    """Where a record lies: `TASK_PROTOCOL_BACKBONE-DIGEST_DATA_seedN.json`.

    Runs that differ in none of these replace one another; changed settings get a short hash of what differs.
    """
    protocol = result.protocol.base.split("/", 1)[1].split("@", 1)[0]
    if result.protocol.is_custom:
        protocol += f"-custom-{_short_hash(result.protocol.differs)}"
    backbone = f"{_slug(result.backbone.name)}-{result.backbone.digest[:8]}"
    parts = (result.task, _slug(protocol), backbone, _slug(result.data.name), f"seed{result.seed}")
    return results_dir / ("_".join(parts) + ".json")


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.") or "unnamed"


def _short_hash(differs: tuple[str, ...]) -> str:
    return hashlib.sha256("\n".join(differs).encode()).hexdigest()[:6]


def write_result(results_dir: Path, result: Result) -> Path:
    """Write a record as JSON, whole or not at all, and return its path.

    Raises:
        UserError: the folder cannot be written.
    """
    path = result_path(results_dir, result)
    write_text(path, result.to_json())
    return path
