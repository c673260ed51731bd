"""Run a task: find it by its name, plan, measure, stamp the record."""

import hashlib
import importlib
import pkgutil
import time
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec

import mocobench
from benchmarks import tasks
from benchmarks.context import RunContext
from benchmarks.protocol import choose_protocol, data_differences, override, protocol_record, settings_of
from benchmarks.result import BackboneRecord, InputRecord, Result
from mocobench.runtime.detectron2 import INSTALLATION, why_no_detectron2
from mocobench.runtime.errors import UserError

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


@dataclass(frozen=True)
class Plan:
    """A run before it starts: the protocol as it will run, how it differs, and the context with its engine chosen.

    `engine_reason` says why that engine; `scaling`, when the protocol was scaled for fewer devices, how.
    """

    task: str
    protocol: Any
    differs: tuple[str, ...]
    context: RunContext
    engine_reason: str
    scaling: str | None = None


def plan_run(
    task: str, *, protocol_name: str, overrides: dict[str, Any], context: RunContext, fewer_devices: int = 1
) -> Plan:
    """Settle everything about a run that can be settled without its data.

    Args:
        overrides: changed settings of the protocol by name.
        fewer_devices: other than 1, for detection: scale the protocol, as overridden, for so many times fewer devices.

    Raises:
        UserError: an unknown task, protocol or engine, or a bad scaling.
    """
    module = load_task(task)
    base = choose_protocol(module.PROTOCOLS, protocol_name)
    protocol, _ = override(base, overrides)
    scaling = None
    if fewer_devices != 1:
        from benchmarks.detection.fewer_devices import describe_scaling, plan_for_fewer_devices

        protocol, scaling = plan_for_fewer_devices(protocol, fewer_devices), describe_scaling(fewer_devices)
    protocol, differs = override(base, settings_of(protocol))
    if context.detector is not None:
        differs += (f"training: as set -> none, {_describe_file(context.detector)}",)
    engine, reason = choose_engine(context.engine, module.ENGINES)
    return Plan(task, protocol, differs, replace(context, engine=engine), reason, scaling)


def _describe_file(path: Path) -> str:
    """A file's name and the beginning of its SHA-256."""
    if not path.is_file():
        raise UserError(f"--detector {path}: expected a trained detector (model_final.pth), found no such file")
    return f"{path.name} (sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:12]})"


def describe_plan(plan: Plan) -> str:
    """The plan in a few lines, for people, before the long work."""
    from mocobench.runtime.distributed import world_size

    context = plan.context
    engine = f"{context.engine} {_engine_record(context.engine)['version']}"
    processes = f", {world_size()} processes" if world_size() > 1 else ""
    lines = [
        plan.protocol.id,
        f"  changed: {'; '.join(plan.differs) or 'nothing'}",
        *([f"  plan: {plan.scaling}"] if plan.scaling else []),
        f"  engine {engine}{', ' if plan.engine_reason else ''}{plan.engine_reason}",
        f"  on {context.device} in {context.precision}{processes}, seed {context.seed}",
    ]
    return "\n".join(lines)


def choose_engine(name: str, engines: tuple[str, ...]) -> tuple[str, str]:
    """The engine that runs, and why that one where it was not named: `auto` is the first that is installed.

    Raises:
        UserError: the task does not run on that engine, or the engine is not installed.
    """
    if name not in ("auto", *engines):
        raise UserError(f"--engine {name}: expected auto or {' or '.join(engines)}")
    missing: list[str] = []
    for engine in engines if name == "auto" else (name,):
        why_not = why_no_detectron2() if engine == "detectron2" else None
        if why_not is None:
            is_choice = name == "auto" and len(engines) > 1
            return engine, "; ".join(["taken by auto", *missing]) if is_choice else ""
        missing.append(f"no {engine}: {why_not}")
    raise UserError(
        f"--engine detectron2: expected Detectron2, but {why_not}; install it as {INSTALLATION} says, "
        "or use --engine embedded: the same model, training and evaluation"
    )


def run_plan(plan: Plan, *, backbone: "Backbone", backbone_name: str, data: Path, command: tuple[str, ...]) -> Result:
    """Measure a backbone as planned and return the stamped record.

    Settings that differ, and data other than the protocol's, make the record's protocol `custom` and are listed in
    it. With `context.out`, the metrics go to TensorBoard there.

    Raises:
        UserError: the folder holds another run, and whatever the task finds wrong with its data.
    """
    from benchmarks.run_folder import claim_folder
    from mocobench.runtime.environment import code_version, environment_stamp, peak_memory_bytes, reset_peak_memory
    from mocobench.runtime.seeds import seed_everything

    context = plan.context
    claim_folder(backbone, plan.protocol, context)
    seed_everything(context.seed)
    reset_peak_memory(context.device)
    code = code_version()  # before the run: the files may change while it lasts
    started = time.monotonic()
    measurement = load_task(plan.task).run(backbone, data, plan.protocol, context)
    wall_seconds = time.monotonic() - started
    _log_metrics(plan, measurement.metrics)
    differs = plan.differs + data_differences(plan.protocol, measurement.data)
    return Result(
        task=plan.task,
        protocol=protocol_record(plan.task, plan.protocol, differs),
        backbone=backbone_record(backbone, backbone_name),
        seed=context.seed,
        engine=_engine_record(context.engine),
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
        details=measurement.details | _how_it_ran(plan),
    )


def _how_it_ran(plan: Plan) -> dict[str, Any]:
    """What is no setting of the protocol and yet moves its numbers, where it was asked for."""
    asked = {"plan": plan.scaling, "images_per_pass": plan.context.images_per_pass}
    return {name: value for name, value in asked.items() if value is not None}


def _log_metrics(plan: Plan, metrics: dict[str, float]) -> None:
    from mocobench.runtime.distributed import is_main

    if plan.context.out is None or not is_main():
        return
    from mocobench.runtime.events import EventFile

    scalars = {f"{plan.task}/{name}": value for name, value in metrics.items()}
    EventFile(plan.context.out).write(getattr(plan.protocol, "iterations", 0), scalars)


def backbone_record(backbone: "Backbone", name: str) -> BackboneRecord:
    """A backbone as a record keeps it."""
    stride = {"stride_in_1x1": True} if backbone.stride_in_1x1 else {}
    return BackboneRecord(
        name=name,
        arch=backbone.arch,
        digest=backbone.digest,
        input=msgspec.convert(backbone.input.to_dict() | stride, InputRecord),
        provenance=backbone.provenance.to_dict(),
    )


def _engine_record(name: str) -> dict[str, str]:
    # The embedded engine is part of this package; any other is a package of its own.
    version = mocobench.__version__ if name == "embedded" else metadata.version(name)
    return {"name": name, "version": version}
