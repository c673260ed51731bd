"""The bench command: one run, or several trials with a seed and a record each, without those that are there."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.context import RunContext
from benchmarks.result import Result
from benchmarks.result_files import find_result, write_result
from benchmarks.run import describe_plan, plan_run, run_plan
from mocobench.runtime.errors import UserError
from mocobench.runtime.files import require_writable

if TYPE_CHECKING:
    from transfer.backbone import InputSpec


@dataclass(frozen=True)
class Request:
    """What to measure. `backbone` is a file, or `random` for a network of `arch` drawn from each trial's seed.

    `source`, `encoder` and `pixels` are as for `load_backbone`, `name` is what tables call it, None for its file's.
    `overrides` are changed settings of the protocol by name; `results` is the folder of records.
    """

    task: str
    backbone: str
    arch: str
    data: Path
    protocol_name: str
    overrides: dict[str, Any]
    fewer_devices: int
    results: Path
    command: tuple[str, ...]
    source: str = "auto"
    encoder: str | None = None
    pixels: "InputSpec | None" = None
    name: str | None = None


def run_trials(request: Request, context: RunContext, *, num_trials: int | None) -> None:
    """Run and record the trials with the seeds from `context.seed` on, and print their metrics; what is suspicious
    about the checkpoint goes to stderr, once.

    A trial has its own folder `seedS` below `context.out`; one whose record is there already is skipped. With
    `num_trials` None there is one run, in `context.out` itself, which replaces its record. On several ranks, rank 0
    prints and writes.

    Raises:
        UserError: a folder cannot be written, or `context.out` is a pretraining run's; and as for `plan_run`,
            `load_or_random` and the task.
    """
    from mocobench.runtime.distributed import is_main

    if is_main():
        for flag, folder in (("results", request.results), ("out", context.out), ("features", context.features)):
            if folder is not None:
                require_writable(folder, flag=f"--{flag}")
    _refuse_pretraining(context.out)
    if num_trials is None:
        _run_one(request, context, skip=False, warn=True)
        return
    for seed in range(context.seed, context.seed + num_trials):
        out = context.out / f"seed{seed}" if context.out is not None else None
        _run_one(request, replace(context, seed=seed, out=out), skip=True, warn=seed == context.seed)


def backbone_name(backbone: str) -> str:
    """What tables call a backbone: its file without the ending, `checkpoint_last` its folder; `random` is that.

    A numbered checkpoint, which any run has, keeps its folder before it.
    """
    path = Path(backbone)
    name = path.name.removesuffix(".tar").removesuffix(".pth") if path.name.endswith(".pth.tar") else path.stem
    folder = path.resolve().parent.name
    if backbone == "random" or not folder or not name.startswith("checkpoint_"):
        return name
    return folder if name == "checkpoint_last" else f"{folder}/{name}"


def _refuse_pretraining(out: Path | None) -> None:
    """TensorBoard takes the curves of one folder for one run's.

    Raises:
        UserError: pretraining has left its checkpoints in the folder.
    """
    if out is not None and (found := out / "checkpoint_last.pth.tar").exists():
        raise UserError(f"--out {out}: expected a folder for this run's files, found {found.name}; name another folder")


def _run_one(request: Request, context: RunContext, *, skip: bool, warn: bool) -> None:
    from mocobench.runtime.distributed import is_main
    from transfer.load import load_or_random

    plan = plan_run(
        request.task,
        protocol_name=request.protocol_name,
        overrides=request.overrides,
        context=context,
        fewer_devices=request.fewer_devices,
    )
    backbone, warnings = load_or_random(
        request.backbone,
        seed=context.seed,
        arch=request.arch,
        source=request.source,
        encoder=request.encoder,
        pixels=request.pixels,
    )
    if warn and is_main():
        for warning in warnings:
            print(f"warning: {request.backbone}: {warning}", file=sys.stderr, flush=True)
    name = request.name or backbone_name(request.backbone)
    if skip:
        present = find_result(request.results, plan, backbone=backbone, backbone_name=name, data=request.data)
        if present is not None:
            if is_main():
                print(f"seed {context.seed}: skipped, {present} has the same settings (remove it to run again)")
            return
    if is_main():
        print(describe_plan(plan), flush=True)
    result = run_plan(plan, backbone=backbone, backbone_name=name, data=request.data, command=request.command)
    if is_main():
        _print_metrics(result)
        print(f"wrote {write_result(request.results, result)}", flush=True)


def _print_metrics(result: Result) -> None:
    for name, value in result.metrics.items():
        print(f"{result.metric_info[name].title:<12} {value:6.2f} {result.metric_info[name].unit}")
    if "feature_norm" in result.details:
        print(f"feature norm {result.details['feature_norm']:.4g}, mean over the validation images")
