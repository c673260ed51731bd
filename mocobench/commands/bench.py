"""`mocobench protocols`, and `bench` of a backbone on a task."""

import argparse
from typing import Any

from mocobench.commands.bench_cost import COST_SUMMARIES, add_cost
from mocobench.commands.bench_flags import add_classification_flags, add_common_flags, add_detection_flags
from mocobench.commands.parser import Parser, add_command, command_of, pixels_of
from mocobench.runtime.errors import UserError

USAGE = "mocobench bench {} --backbone PATH|random --data DIR [FLAGS]"


def add_protocols(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = add_command(
        commands, common, "protocols", "print evaluation protocols with every value they set", _protocols
    )
    parser.add_argument("task", nargs="?", metavar="TASK", help="print the protocols of this task alone (all)")


def _protocols(args: argparse.Namespace) -> None:
    from benchmarks.protocol import card
    from benchmarks.run import load_task, task_names

    for task in [args.task] if args.task else task_names():
        for name, protocol in load_task(task).PROTOCOLS.items():
            print(f"--protocol {name}: {card(protocol)}\n")


def add_bench(commands: Any, common: argparse.ArgumentParser, argv: list[str]) -> None:
    """Add `bench`: with the flags of the task that `argv` names, or for its help the list of tasks."""
    _require_task_first(argv)
    is_bench = argv[:1] == ["bench"]
    task = argv[1] if is_bench and len(argv) > 1 and not argv[1].startswith("-") else None
    if task in COST_SUMMARIES:
        add_cost(commands, common, task)
    elif task is not None:
        _add_task(commands, common, task)
    else:
        parser = add_command(commands, common, "bench", "measure a backbone on one task", _bench)
        parser.usage = USAGE.format("TASK")
        add_common_flags(parser, protocols="paper, smoke or another of the task's")
        if is_bench:
            _list_tasks(parser)


def _list_tasks(parser: Parser) -> None:
    """Show what there is to measure; no command line without a task gets further than help."""
    from benchmarks.run import load_task, task_names

    parser.description = "Measure a backbone on one task; `mocobench bench TASK --help` shows all flags of a task."
    tasks = parser.add_subparsers(metavar="TASK", required=True, parser_class=Parser, help="what to measure")
    for name, summary in ({name: load_task(name).SUMMARY for name in task_names()} | COST_SUMMARIES).items():
        tasks.add_parser(name, help=summary.replace("%", "%%"))


def _add_task(commands: Any, common: argparse.ArgumentParser, task: str) -> None:
    """Add `bench` with the flags of one task.

    Raises:
        UserError: no such task; those that exist are listed.
    """
    from benchmarks.protocol import task_setting_flags
    from benchmarks.run import load_task, task_names

    if task not in task_names():
        raise UserError(f"task {task}: expected one of {', '.join((*task_names(), *COST_SUMMARIES))}")
    module = load_task(task)
    texts = {"description": module.SUMMARY, "prog": f"mocobench bench {task}"}
    parser = add_command(commands, common, "bench", "", _bench, **texts)
    parser.usage = USAGE.format(task)
    parser.add_argument("task", help=argparse.SUPPRESS)
    add_common_flags(parser, protocols=", ".join(module.PROTOCOLS))
    settings = parser.add_argument_group(
        f"settings of {task}",
        "Each replaces the protocol's value and makes the record's protocol custom. In brackets: the value of "
        f"--protocol paper; `mocobench protocols {task}` prints those of all.",
    )
    for flag, keywords in task_setting_flags(module.PROTOCOLS).items():
        settings.add_argument(flag, **keywords)
    if task.endswith("-detection"):
        add_detection_flags(parser)
    else:
        add_classification_flags(parser, task)


def _require_task_first(argv: list[str]) -> None:
    """The task decides which flags there are, so it is looked for where it must be.

    Raises:
        UserError: a flag, other than for help, stands there.
    """
    is_flag = argv[:1] == ["bench"] and len(argv) > 1 and argv[1].startswith("-")
    if is_flag and not {"-h", "--help"} & set(argv):
        raise UserError(
            f"bench: expected the task first, `mocobench bench TASK --backbone PATH --data DIR`, found {argv[1]}; "
            "see `mocobench bench --help`"
        )


def _bench(args: argparse.Namespace) -> None:
    from dataclasses import fields

    from benchmarks.context import RunContext
    from benchmarks.protocol import settings_of
    from benchmarks.run import choose_engine, load_task
    from benchmarks.trials import Request, run_trials
    from mocobench.runtime.detectron2 import detectron2_precision
    from mocobench.runtime.device import choose_device, choose_precision
    from mocobench.runtime.distributed import process_group
    from mocobench.runtime.workers import lost_workers_are_named

    if getattr(args, "visualize", 0) and args.out is None:
        raise UserError(f"--visualize {args.visualize}: expected a folder for the pictures, found none; add --out DIR")
    if getattr(args, "detector", None) and args.trials:
        raise UserError("--detector: expected no --trials with it, found both; one trained detector gives one result")
    if args.backbone == "random" and (flag := _flag_of_a_file(args)) is not None:
        raise UserError(f"{flag}: expected a checkpoint with it, found --backbone random; leave it out")
    if args.backbone != "random" and args.arch is not None:
        raise UserError(f"--arch {args.arch}: expected --backbone random with it, found a file, which says its own")
    task = load_task(args.task)
    names = {name for protocol in task.PROTOCOLS.values() for name in settings_of(protocol)}
    request = Request(
        task=args.task,
        backbone=args.backbone,
        arch=args.arch or "resnet50",
        source=args.source,
        encoder=args.encoder,
        pixels=pixels_of(args),
        name=args.name,
        data=args.data,
        protocol_name=args.protocol,
        overrides={name: value for name in names if (value := getattr(args, name, None)) is not None},
        fewer_devices=getattr(args, "fewer_devices", 1),
        results=args.results,
        command=command_of(args),
    )
    device = choose_device(args.device)
    engine, _ = choose_engine(getattr(args, "engine", "auto"), task.ENGINES)
    asked = detectron2_precision(args.precision) if engine == "detectron2" else args.precision
    chosen = {"device": device, "precision": choose_precision(asked, device), "num_workers": args.workers}
    given = {f.name: getattr(args, f.name) for f in fields(RunContext) if hasattr(args, f.name)}
    with process_group(device), lost_workers_are_named():
        run_trials(request, RunContext(**(given | chosen)), num_trials=args.trials)


def _flag_of_a_file(args: argparse.Namespace) -> str | None:
    """A flag that only a backbone from a file has a use for, if one was given."""
    if args.source != "auto":
        return "--from"
    return next((f"--{name}" for name in ("encoder", "mean", "std", "name") if getattr(args, name) is not None), None)
