"""The folder of a run: a note of what runs there, so that no other run goes on with its files or writes over them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.context import RunContext
from benchmarks.protocol import settings_of, show
from benchmarks.result import DataIdentity
from mocobench.runtime.distributed import gather_objects, is_main, world_size
from mocobench.runtime.errors import UserError
from mocobench.runtime.files import write_text
from transfer.backbone import Backbone

T = TypeVar("T")

NOTE = "bench_run.json"
KEPT = (".pth", ".png")  # checkpoints and pictures; a run that has left neither is no loss
# What checkpoints of older versions do not say of their run, or said when we no longer do.
UNSAID = ("engine", "detector", "arch", "feature_size", "images_per_pass", "skipped")


def describe_run(
    backbone: Backbone, protocol: Any, context: RunContext, data: DataIdentity | None = None
) -> dict[str, str]:
    """Everything that the outcome is a function of, by name: runs that agree in it may go on with each other's files.

    The data is part of it as soon as it has been read.
    """
    run = {
        "engine": context.engine,
        "protocol": protocol.id,
        "detector": str(context.detector and context.detector.resolve()),
        "arch": backbone.arch,
        "backbone": backbone.digest,
        "seed": str(context.seed),
        "device": context.device.type,
        "precision": context.precision,
        "processes": str(world_size()),
        "images_per_pass": str(context.images_per_pass),
        **{name: show(value) for name, value in settings_of(protocol).items()},
    }
    if data is None:
        return run
    lists = {f"{name} list": f"{split.images} images, {split.list_sha256}" for name, split in data.splits.items()}
    return {**run, **lists, "skipped": str(len(data.skipped))}


def claim_folder(backbone: Backbone, protocol: Any, context: RunContext, data: DataIdentity | None = None) -> None:
    """Note the run in `context.out`, if there is one; what a killed process left half-written there is removed.

    A folder without a note is left to its checkpoints, which say whose they are. All ranks do as rank 0 finds.

    Raises:
        UserError: the folder holds another run, or any when `context.resume` is `never`.
    """
    if context.out is None:
        return
    note, run = context.out / NOTE, describe_run(backbone, protocol, context, data)
    noted = gather_objects(_note_of_what_is_kept(context.out) if is_main() else None)[0]
    if noted:

        def read(_: Path) -> tuple[dict[str, str], None]:
            """What is noted of the data counts only once they have been read."""
            return {name: said for name, said in json.loads(noted).items() if data is not None or name in run}, None

        read_own(note, read, run, resume=context.resume)
    if is_main():
        for half_written in context.out.glob(".*.tmp"):
            half_written.unlink()
        if noted is None:
            write_text(note, json.dumps(run, indent=2) + "\n")


def _note_of_what_is_kept(out: Path) -> str | None:
    """The note of a run that has left something to keep, empty where it left none; None where nothing is kept."""
    if not any(path.suffix in KEPT for path in out.glob("*")):
        return None
    note = out / NOTE
    return note.read_text(encoding="utf-8", errors="replace") if note.exists() else ""


def read_own(path: Path, read: Callable[[Path], tuple[dict[str, str], T]], run: dict[str, str], *, resume: str) -> T:
    """What `read` finds in a file besides the description of the run that it is of, which must be this `run`.

    Raises:
        UserError: it is of another run, or cannot be read, or `resume` is `never`.
    """
    if resume == "never":
        raise UserError(f"--resume never: {path} exists; choose another --out or remove that run")
    try:
        there, rest = read(path)
    except Exception as error:
        raise UserError(
            f"{path}: expected what `mocobench bench` wrote, found {type(error).__name__}; use another --out"
        ) from error
    differs = [name for name in run | there if there.get(name) != run.get(name)]
    # What only one of them says is of interest where nothing else differs: another protocol has other settings.
    named = [name for name in differs if name in run and name in there] or [n for n in differs if n not in UNSAID]
    if named:
        found = "; ".join(f"{name} {there.get(name, 'unset')} there, {run.get(name, 'unset')} asked" for name in named)
        raise UserError(f"{path}: expected a run of the same settings, found {found}; use another --out")
    return rest
