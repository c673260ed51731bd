"""The command `mocobench`: parses, calls one function of one stage, exits.

Exit status: 0 done; 2 for anything the user can mend, as one line on standard error; 1 for our own faults.
Nothing heavy is imported before a sub-command runs, so that help is instant.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.result import RecordError
from mocobench import __version__
from mocobench.runtime.errors import UserError

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "fp32", "bf16")


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is one line, like every other user error."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see `{self.prog} --help`")


def entry_point() -> None:
    """The console script."""
    sys.exit(main(sys.argv[1:]))


def main(argv: list[str]) -> int:
    """Run one command line and return its exit status."""
    try:
        args = build_parser(argv).parse_args(argv, argparse.Namespace(argv=tuple(argv)))
        if not hasattr(args, "run"):
            raise UserError("expected a command; see `mocobench --help`")
        args.run(args)
    except (UserError, RecordError) as error:
        if "--debug" in argv:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def build_parser(argv: list[str]) -> Parser:
    """The whole command line; flags that stand for a task's settings are added when `argv` names the task."""
    parser = Parser(prog="mocobench", description="Measure how well a pretrained visual backbone transfers.")
    parser.add_argument("--version", action="version", version=f"mocobench {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(metavar="COMMAND", parser_class=Parser)
    for add in (
        _add_demo,
        _add_doctor,
        _add_recipes,
        _add_pretrain,
        _add_inspect,
        _add_convert,
        _add_protocols,
    ):
        add(commands, common)
    _add_bench(commands, common, argv)
    _add_report(commands, common)
    _add_published(commands, common)
    return parser


def _command(commands: Any, common: argparse.ArgumentParser, name: str, help_text: str, run: Any) -> Parser:
    parser: Parser = commands.add_parser(name, help=help_text, description=help_text, parents=[common])
    parser.set_defaults(run=run)
    return parser


# demo, doctor


def _add_demo(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = _command(commands, common, "demo", "run the whole chain on a small generated picture world", _demo)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for everything it makes (demo)")
    parser.add_argument("--seed", type=int, default=0)


def _demo(args: argparse.Namespace) -> None:
    from mocobench.demo import run_demo

    run_demo(args.out, seed=args.seed)


def _add_doctor(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = _command(
        commands, common, "doctor", "say what this machine can do, what is missing and what it costs", _doctor
    )
    parser.add_argument("--json", action="store_true", help="for machines")


def _doctor(args: argparse.Namespace) -> None:
    from mocobench.doctor import examine, to_json, to_text

    findings = examine()
    print(to_json(findings) if args.json else to_text(findings))


# pretrain


def _add_recipes(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = _command(
        commands, common, "recipes", "print pretraining recipes with every value and its source", _recipes
    )
    parser.add_argument("name", nargs="?", metavar="NAME")


def _recipes(args: argparse.Namespace) -> None:
    from pretrain.cards import card
    from pretrain.recipes import RECIPES, choose_recipe

    chosen = [choose_recipe(args.name)] if args.name else list(RECIPES.values())
    print("\n\n".join(card(recipe) for recipe in chosen))


RESUME_HELP = "(auto: continue what --out holds)"
RECIPE_FLAGS = {
    "arch": str,
    "epochs": int,
    "batch_size": int,
    "bn_groups": int,
    "learning_rate": float,
    "image_size": int,
    "queue_size": int,
    "key_momentum": float,
    "temperature": float,
}


def _add_pretrain(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = _command(
        commands, common, "pretrain", "train a backbone from a folder of images: MoCo, SimCLR or end-to-end", _pretrain
    )
    parser.add_argument("--recipe", required=True, metavar="NAME", help="see `mocobench recipes`")
    parser.add_argument(
        "--data",
        required=True,
        type=Path,
        metavar="DIR|SHARDS",
        help="folder with images or .tar shards in train/, or '{0..9}.tar'",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="checkpoints, metrics.jsonl, run.json")
    settings = parser.add_argument_group("settings of the recipe (each overrides its value)")
    for name, kind in RECIPE_FLAGS.items():
        settings.add_argument(f"--{name.replace('_', '-')}", dest=name, type=kind)
    parser.add_argument("--resume", default="auto", metavar="auto|never|PATH", help="(auto: continue what --out holds)")
    parser.add_argument("--checkpoint-every", type=count, default=1000, metavar="STEPS", help="and each epoch (1000)")
    parser.add_argument(
        "--checkpoint-minutes",
        type=positive,
        default=0.0,
        metavar="M",
        help="and when the last one is so old (any age)",
    )
    parser.add_argument(
        "--keep-every", type=int, default=0, metavar="EPOCHS", help="keep numbered checkpoints (last only)"
    )
    parser.add_argument("--knn-every", type=count, default=0, metavar="EPOCHS", help="online kNN accuracy (never)")
    parser.add_argument("--knn-data", type=Path, metavar="DIR", help="its labelled train/ and val/ (--data)")
    parser.add_argument("--on-bad-image", choices=("stop", "skip"), default="stop", help="one that cannot be read")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile the encoders: costs a minute or more at first; see whether it pays on your device",
    )
    _add_run_flags(parser)


def _add_run_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=DEVICES, default="auto")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto")
    parser.add_argument("--workers", type=int, default=2, help="processes that load images (2)")


def _pretrain(args: argparse.Namespace) -> None:
    from mocobench.runtime.device import check_compiler, choose_device, choose_precision
    from mocobench.runtime.distributed import is_main, process_group
    from pretrain.cards import card
    from pretrain.recipes import choose_recipe, customise
    from pretrain.run import TrainingRun
    from pretrain.train import pretrain

    changes = {name: getattr(args, name) for name in RECIPE_FLAGS if getattr(args, name) is not None}
    recipe, differs = customise(choose_recipe(args.recipe), changes)
    device = choose_device(args.device)
    if args.compile:
        check_compiler(device)
    run = TrainingRun(
        recipe=recipe,
        differs=differs,
        data=args.data,
        out=args.out,
        seed=args.seed,
        device=device,
        precision=choose_precision(args.precision, device),
        num_workers=args.workers,
        resume=args.resume,
        checkpoint_every=args.checkpoint_every,
        checkpoint_minutes=args.checkpoint_minutes,
        keep_every=args.keep_every,
        knn_every=args.knn_every,
        knn_data=args.knn_data,
        on_bad_image=args.on_bad_image,
        compile=args.compile,
        command=command_of(args),
    )
    with process_group(device):
        if is_main():
            print(card(recipe))
            print(f"  changed: {'; '.join(differs) or 'nothing'}")
            print(f"  on {device} in {run.precision}, seed {run.seed}", flush=True)
        last = pretrain(run)
        if is_main():
            print(f"wrote {last}")


# transfer


def _add_inspect(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = _command(commands, common, "inspect", "say what a checkpoint holds", _inspect)
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    _add_source_flags(parser)
    parser.add_argument("--json", action="store_true", help="for machines")


def _add_source_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--from", dest="source", default="auto", metavar="auto|NAME", help="the format (auto)")
    parser.add_argument("--encoder", metavar="NAME", help="of files with two: query, key, ... (the authors' choice)")


def _inspect(args: argparse.Namespace) -> None:
    from transfer.inspect import inspect, to_json, to_text

    findings = inspect(args.checkpoint, args.source, args.encoder)
    print(to_json(findings) if args.json else to_text(findings))


def _add_convert(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = _command(commands, common, "convert", "translate a checkpoint and prove that nothing changed", _convert)
    parser.add_argument("checkpoint", type=Path, metavar="SRC")
    parser.add_argument("target", type=Path, metavar="DST")
    parser.add_argument(
        "--to", required=True, metavar="NAME", help="detectron2, huggingface, moco, safetensors, timm or torchvision"
    )
    _add_source_flags(parser)


def _convert(args: argparse.Namespace) -> None:
    from transfer.convert import convert, to_text

    print(to_text(convert(args.checkpoint, args.target, to=args.to, source=args.source, encoder=args.encoder)))


# benchmarks


def _add_protocols(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = _command(commands, common, "protocols", "print evaluation protocols with every value they set", _protocols)
    parser.add_argument("task", nargs="?", metavar="TASK")


def _protocols(args: argparse.Namespace) -> None:
    from benchmarks.protocol import card
    from benchmarks.run import load_task, task_names

    for task in [args.task] if args.task else task_names():
        for name, protocol in load_task(task).PROTOCOLS.items():
            print(f"--protocol {name}: {card(protocol)}\n")


def _add_bench(commands: Any, common: argparse.ArgumentParser, argv: list[str]) -> None:
    if argv[:2] == ["bench", "input-pipeline"]:
        _add_input_pipeline(commands, common)
        return
    if argv[:2] == ["bench", "pretrain-cost"]:
        _add_pretrain_cost(commands, common)
        return
    parser = _command(commands, common, "bench", "measure a backbone on one task", _bench)
    parser.add_argument(
        "task",
        metavar="TASK",
        help="see `mocobench protocols`, or input-pipeline or pretrain-cost; TASK --help shows its settings",
    )
    parser.add_argument("--backbone", required=True, metavar="PATH|random")
    parser.add_argument("--arch", default="resnet50", help="of the random backbone (resnet50)")
    parser.add_argument("--data", required=True, type=Path, metavar="DIR")
    parser.add_argument("--protocol", default="paper", metavar="NAME", help="(paper)")
    parser.add_argument("--engine", default="auto", metavar="auto|embedded|detectron2")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="for the record (results)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for other files of the run, such as the final model")
    parser.add_argument(
        "--trials", type=count, metavar="N", help="seeds --seed to --seed + N - 1, without those in --results"
    )
    parser.add_argument("--on-bad-annotation", choices=("stop", "skip"), default="stop")
    _add_run_flags(parser)
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


def _add_classification_flags(parser: Parser, task: str) -> None:
    """How to run; none of it changes the protocol, but `--label-list` the labelled images."""
    flags = parser.add_argument_group("running a classification task")
    if task != "voc-svm":
        flags.add_argument(
            "--on-bad-image",
            choices=("stop", "skip"),
            default="stop",
            help="(stop) skip: read every image once before the work and leave out those that cannot be",
        )
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


def _add_input_pipeline(commands: Any, common: argparse.ArgumentParser) -> None:
    help_text = "images per second and core of each step before training: read, decode, crop, views"
    parser = _command(commands, common, "bench", help_text, _input_pipeline)
    parser.add_argument("task", choices=("input-pipeline",))
    parser.add_argument("--data", required=True, type=Path, metavar="DIR|SHARDS", help="as of `mocobench pretrain`")
    parser.add_argument("--recipe", default="moco-v2-200ep", metavar="NAME", help="whose views (moco-v2-200ep)")
    parser.add_argument("--images", type=count, default=200, metavar="N", help="how many, drawn at random (200)")
    parser.add_argument("--rate", type=float, default=1000, metavar="N", help="images/s that training needs (1000)")
    parser.add_argument("--results", type=Path, metavar="DIR", help="write the record input-pipeline.json (none)")
    parser.add_argument("--seed", type=int, default=0)


def _input_pipeline(args: argparse.Namespace) -> None:
    from pretrain.images import training_images
    from pretrain.input_cost import measure_input_cost, to_text, write_record
    from pretrain.recipes import choose_recipe

    images = training_images(args.data)
    cost = measure_input_cost(images, choose_recipe(args.recipe), num_images=args.images, seed=args.seed)
    print(to_text(cost, rate=args.rate))
    if args.results is not None:
        path = write_record(cost, args.results, data=images.identity(), command=command_of(args))
        print(f"wrote {path}")


def _add_pretrain_cost(commands: Any, common: argparse.ArgumentParser) -> None:
    help_text = "memory and time of a pretraining step on this device: the MoCo v2 paper's Table 3, measured"
    parser = _command(commands, common, "bench", help_text, _pretrain_cost)
    parser.add_argument("task", choices=("pretrain-cost",))
    parser.add_argument("--methods", default="moco,end-to-end", metavar="A,B", help="(moco,end-to-end)")
    parser.add_argument("--batch-sizes", type=counts, default=[32, 64], metavar="N,M,...", help="on one device (32,64)")
    parser.add_argument("--arch", default="resnet50", help="(resnet50)")
    parser.add_argument("--image-size", type=count, default=224, metavar="N", help="pixels (224)")
    parser.add_argument("--steps", type=count, default=10, metavar="N", help="timed ones, after one more (10)")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="for records (results)")
    parser.add_argument("--device", choices=DEVICES, default="auto")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto")


def _pretrain_cost(args: argparse.Namespace) -> None:
    import time

    from benchmarks.pretrain_cost import cost_result
    from benchmarks.run import write_result
    from mocobench.runtime.device import choose_device, choose_precision
    from mocobench.runtime.environment import code_version, environment_stamp
    from pretrain.cost import cost_recipe, measure_apart, settings_of

    device = choose_device(args.device)
    precision, code = choose_precision(args.precision, device), code_version()
    sizes = {"arch": args.arch, "image_size": args.image_size}
    methods = args.methods.split(",")
    for recipe in [cost_recipe(method, batch_size=batch, **sizes) for method in methods for batch in args.batch_sizes]:
        started = time.monotonic()
        cost = measure_apart(recipe, device=device, precision=precision, num_steps=args.steps)
        result = cost_result(
            settings_of(recipe),
            num_steps=args.steps,
            images_per_second=cost.images_per_second,
            peak_memory_bytes=cost.peak_memory_bytes,
            precision=precision,
            wall_seconds=time.monotonic() - started,
            code=code,
            environment=environment_stamp(device),
            command=command_of(args),
        )
        values = [f"{result.metrics[name]:.1f} {info.unit}" for name, info in result.metric_info.items()]
        print(f"{recipe.method}, batch {recipe.batch_size}: {', '.join(values)} for 200 epochs")
        print(f"wrote {write_result(args.results, result)}", flush=True)


def counts(text: str) -> list[int]:
    return [count(part) for part in text.split(",")]


def count(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1, found {text}")
    return int(text)


def positive(text: str) -> float:
    if not 0 < float(text) < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, found {text}")
    return float(text)


def _bench(args: argparse.Namespace) -> None:
    from dataclasses import fields

    from benchmarks.context import RunContext
    from benchmarks.protocol import settings_of
    from benchmarks.run import load_task
    from benchmarks.trials import Request, run_trials
    from mocobench.runtime.device import choose_device, choose_precision
    from mocobench.runtime.distributed import process_group

    if getattr(args, "visualize", 0) and args.out is None:
        raise UserError(f"--visualize {args.visualize}: expected a folder for the pictures, found none; add --out DIR")
    if getattr(args, "detector", None) and args.trials:
        raise UserError("--detector: expected no --trials with it, found both; one trained detector gives one result")
    names = {name for protocol in load_task(args.task).PROTOCOLS.values() for name in settings_of(protocol)}
    request = Request(
        task=args.task,
        backbone=args.backbone,
        arch=args.arch,
        data=args.data,
        protocol_name=args.protocol,
        overrides={name: value for name in names if (value := getattr(args, name, None)) is not None},
        fewer_devices=getattr(args, "fewer_devices", 1),
        results=args.results,
        command=command_of(args),
    )
    device = choose_device(args.device)
    chosen = {"device": device, "precision": choose_precision(args.precision, device), "num_workers": args.workers}
    given = {f.name: getattr(args, f.name) for f in fields(RunContext) if hasattr(args, f.name)}
    with process_group(device):
        run_trials(request, RunContext(**(given | chosen)), num_trials=args.trials)


# reports


def _add_report(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = _command(commands, common, "report", "tables of results beside the published numbers", _report)
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS_DIR")
    parser.add_argument("--format", default="markdown", metavar="markdown|latex|csv|html", help="(markdown)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="(standard output)")
    parser.add_argument("--check", type=Path, metavar="FILE", help="fail unless FILE holds this report; write nothing")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="draw pictures there, as SVG and PNG")
    parser.add_argument("--curves", type=Path, metavar="FILE", help="draw the training curves too, as a PNG")
    parser.add_argument("--runs", type=Path, metavar="FILE", help="write every metric of every run too, as CSV")


def _report(args: argparse.Namespace) -> None:
    from reports.cycle_search import paused_cycle_search

    with paused_cycle_search():
        _write_report(args)


def _write_report(args: argparse.Namespace) -> None:
    from mocobench.runtime.files import atomic_file, write_text
    from reports.collect import collect_results
    from reports.report import check_format, check_report, draw_report_pictures, render_report

    check_format(args.format)
    collection = collect_results(args.results)
    if collection.left_out:
        print(f"warning: {len(collection.left_out)} files are no whole records; the report lists them", file=sys.stderr)
    is_drawn = args.pictures is not None or args.format == "html"
    pictures = draw_report_pictures(collection, folder=args.pictures, out=args.out) if is_drawn else ()
    text = render_report(collection, format=args.format, pictures=pictures)
    if args.check is not None:
        check_report(text, args.check)
        print(f"{args.check} holds the report of these records")
        return
    for picture in pictures if args.pictures else ():
        for ending, content in (("svg", picture.svg), ("png", picture.png)):
            with atomic_file(args.pictures / f"{picture.name}.{ending}") as path:
                path.write_bytes(content)
    if args.curves is not None:
        from reports.pictures.loss_curves import draw_curves

        with atomic_file(args.curves) as path:
            path.write_bytes(draw_curves(collection.results))
    if args.runs is not None:
        from reports.frame import results_frame

        table = results_frame(collection.results).to_csv(index=False)
        write_text(args.runs, table.encode("utf-8", "replace").decode())  # JSON can name half of a character
    if args.out is None:
        print(text, end="")
    else:
        write_text(args.out, text)
        print(f"wrote {args.out}")


def _add_published(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = _command(commands, common, "published", "list and cite the published numbers", _published)
    parser.add_argument("--protocol", default="", metavar="ID|TASK", help="(all)")
    parser.add_argument("--method", default="", metavar="NAME", help="(all)")
    parser.add_argument("--source", default="", metavar="NAME", help="(all)")
    parser.add_argument("--checked", default="", metavar="original|transcription|unchecked", help="(all)")
    parser.add_argument("--disagreements", action="store_true", help="only what two sources print differently")
    parser.add_argument("--format", default="markdown", metavar="markdown|latex|csv|html|bibtex", help="(markdown)")


def _published(args: argparse.Namespace) -> None:
    from reports.catalogue import Wanted, list_published

    wanted = Wanted(args.protocol, args.method, args.source, args.checked, args.disagreements)
    print(list_published(wanted, format=args.format), end="")


def command_of(args: argparse.Namespace) -> tuple[str, ...]:
    """The command line as it can be typed again."""
    return ("mocobench", *args.argv)
