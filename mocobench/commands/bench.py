"""`mocobench protocols`, and `bench` of a backbone on a task."""

import argparse
from pathlib import Path
from typing import Any

from mocobench.commands.bench_cost import add_input_pipeline, add_pretrain_cost
from mocobench.commands.parser import (
    RESUME_HELP,
    Parser,
    add_command,
    add_run_flags,
    add_source_flags,
    command_of,
    count,
)
from mocobench.runtime.errors import UserError


def add_protocols(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = add_command(
        commands, common, "protocols", "print evaluation protocols with every value they set", _protocols
    )
    parser.add_argument("task", nargs="?", metavar="TASK")


def _protocols(args: argparse.Namespace) -> None:
    from benchmarks.protocol import card
    from benchmarks.run import load_task, task_names

    for task in [args.task] if args.task else task_names():
        for name, protocol in load_task(task).PROTOCOLS.items():
            print(f"--protocol {name}: {card(protocol)}\n")


def add_bench(commands: Any, common: argparse.ArgumentParser, argv: list[str]) -> None:
    if argv[:2] == ["bench", "input-pipeline"]:
        add_input_pipeline(commands, common)
        return
    if argv[:2] == ["bench", "pretrain-cost"]:
        add_pretrain_cost(commands, common)
        return
    parser = add_command(commands, common, "bench", "measure a backbone on one task", _bench)
    parser.usage = "mocobench bench TASK --backbone PATH|random --data DIR [FLAGS]"
    _require_task_first(argv)
    parser.add_argument(
        "task",
        metavar="TASK",
        help="see `mocobench protocols`, or input-pipeline or pretrain-cost; TASK --help shows its settings",
    )
    parser.add_argument("--backbone", required=True, metavar="PATH|random")
    parser.add_argument("--arch", default="resnet50", help="of the random backbone (resnet50)")
    add_source_flags(parser)
    parser.add_argument("--name", metavar="NAME", help="what tables call the backbone (its file, without the ending)")
    parser.add_argument("--data", required=True, type=Path, metavar="DIR")
    parser.add_argument("--protocol", default="paper", metavar="NAME", help="(paper)")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="for the record (results)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for other files of the run, such as the final model")
    parser.add_argument(
        "--trials", type=count, metavar="N", help="seeds --seed to --seed + N - 1, without those in --results"
    )
    add_run_flags(parser)
    if len(argv) > 1 and argv[0] == "bench" and not argv[1].startswith("-"):
        from benchmarks.protocol import setting_flags
        from benchmarks.run import load_task

        task = argv[1]
        settings = parser.add_argument_group(f"settings of {task} (each overrides the protocol and makes it custom)")
        flags: dict[str, Any] = {}
        for protocol in load_task(task).PROTOCOLS.values():
            flags |= setting_flags(protocol)
        for flag, keywords in flags.items():
            settings.add_argument(flag, **keywords)
        if task.endswith("-detection"):
            _add_detection_flags(parser)
        else:
            _add_classification_flags(parser, task)


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


def _add_classification_flags(parser: Parser, task: str) -> None:
    """How to run; none of it changes the protocol, but `--label-list` the labelled images."""
    flags = parser.add_argument_group("running a classification task")
    flags.add_argument(
        "--on-bad-image",
        choices=("stop", "skip"),
        default="stop",
        help="(stop) one that cannot be read; skip: leave it out, count and name it in the record",
    )
    if task == "voc-svm":
        flags.add_argument("--on-bad-annotation", choices=("stop", "skip"), default="stop")
    if task in ("imagenet-linear", "imagenet-semi"):
        flags.add_argument("--resume", choices=("auto", "never"), default="auto", help=RESUME_HELP)
        flags.add_argument(
            "--checkpoint-every", type=count, default=1000, metavar="STEPS", help="and each epoch (1000)"
        )
    if task == "imagenet-semi":
        flags.add_argument(
            "--label-list", type=Path, metavar="FILE", help="names of the labelled images, such as SimCLR's own list"
        )
    else:
        flags.add_argument(
            "--features", type=Path, metavar="DIR", help="keep features of frozen backbones there, for later runs"
        )


def _add_detection_flags(parser: Parser) -> None:
    """How to run; only the plan for fewer devices changes the protocol."""
    flags = parser.add_argument_group("running a detection task")
    flags.add_argument("--engine", default="auto", metavar="auto|embedded|detectron2")
    flags.add_argument("--on-bad-annotation", choices=("stop", "skip"), default="stop")
    flags.add_argument(
        "--images-per-pass", type=count, metavar="N", help="embedded: split each process's batch, same batch"
    )
    flags.add_argument(
        "--fewer-devices",
        type=count,
        default=1,
        metavar="K",
        help="batch and learning rate divided by K, schedule times K; makes the protocol custom",
    )
    flags.add_argument("--resume", choices=("auto", "never"), default="auto", help=RESUME_HELP)
    flags.add_argument(
        "--detector", type=Path, metavar="PATH", help="evaluate this model_final.pth (of either engine), train nothing"
    )
    flags.add_argument("--checkpoint-every", type=count, default=1000, metavar="N", help="iterations (1000)")
    flags.add_argument("--visualize", type=count, default=0, metavar="N", help="draw N test images in --out")


def _bench(args: argparse.Namespace) -> None:
    from dataclasses import fields

    from benchmarks.context import RunContext
    from benchmarks.protocol import settings_of
    from benchmarks.run import choose_engine, load_task
    from benchmarks.trials import Request, run_trials
    from mocobench.runtime.detectron2 import detectron2_precision
    from mocobench.runtime.device import choose_device, choose_precision
    from mocobench.runtime.distributed import process_group

    if getattr(args, "visualize", 0) and args.out is None:
        raise UserError(f"--visualize {args.visualize}: expected a folder for the pictures, found none; add --out DIR")
    if getattr(args, "detector", None) and args.trials:
        raise UserError("--detector: expected no --trials with it, found both; one trained detector gives one result")
    if args.backbone == "random" and (flag := _flag_of_a_file(args)) is not None:
        raise UserError(f"{flag}: expected a checkpoint with it, found --backbone random; leave it out")
    task = load_task(args.task)
    names = {name for protocol in task.PROTOCOLS.values() for name in settings_of(protocol)}
    request = Request(
        task=args.task,
        backbone=args.backbone,
        arch=args.arch,
        source=args.source,
        encoder=args.encoder,
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
    with process_group(device):
        run_trials(request, RunContext(**(given | chosen)), num_trials=args.trials)


def _flag_of_a_file(args: argparse.Namespace) -> str | None:
    """A flag that only a backbone from a file has a use for, if one was given."""
    given = {"--from": args.source != "auto", "--encoder": args.encoder is not None, "--name": args.name is not None}
    return next((flag for flag, is_given in given.items() if is_given), None)
