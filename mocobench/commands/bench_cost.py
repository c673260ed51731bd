"""`mocobench bench input-pipeline` and `bench pretrain-cost`: what pretraining will cost, before it starts."""

import argparse
from pathlib import Path
from typing import Any

from mocobench.commands.parser import (
    add_command,
    add_device_flags,
    add_seed_flag,
    command_of,
    count,
    counts,
    positive,
)

# What is measured without a backbone, beside the tasks in benchmarks/tasks.
COST_SUMMARIES = {
    "input-pipeline": "images per second and core of each step before training: read, decode, crop, views",
    "pretrain-cost": "memory and time of a pretraining step on this device: the MoCo v2 paper's Table 3, measured",
}


def add_cost(commands: Any, common: argparse.ArgumentParser, name: str) -> None:
    """Add `bench` with the flags of one of `COST_SUMMARIES`."""
    add_flags, run = {
        "input-pipeline": (_add_input_pipeline_flags, _input_pipeline),
        "pretrain-cost": (_add_pretrain_cost_flags, _pretrain_cost),
    }[name]
    parser = add_command(commands, common, "bench", COST_SUMMARIES[name], run, prog=f"mocobench bench {name}")
    parser.add_argument("task", choices=(name,), help=argparse.SUPPRESS)
    add_flags(parser)


def _add_input_pipeline_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, type=Path, metavar="DIR|SHARDS", help="as of `mocobench pretrain`")
    parser.add_argument("--recipe", default="moco-v2-200ep", metavar="NAME", help="whose views (moco-v2-200ep)")
    parser.add_argument(
        "--images", type=count, default=200, metavar="N", help="images to measure, drawn at random (200)"
    )
    parser.add_argument("--rate", type=positive, default=1000, metavar="N", help="images/s that training needs (1000)")
    parser.add_argument("--results", type=Path, metavar="DIR", help="write the record input-pipeline.json (none)")
    add_seed_flag(parser)


def _input_pipeline(args: argparse.Namespace) -> None:
    from mocobench.runtime.files import require_writable
    from pretrain.images import training_images
    from pretrain.input_cost import measure_input_cost, to_text, write_record
    from pretrain.recipes import choose_recipe

    if args.results is not None:
        require_writable(args.results, flag="--results")
    images = training_images(args.data)
    cost = measure_input_cost(images, choose_recipe(args.recipe), num_images=args.images, seed=args.seed)
    print(to_text(cost, rate=args.rate))
    if args.results is not None:
        path = write_record(cost, args.results, data=images.identity(), command=command_of(args))
        print(f"wrote {path}")


def _add_pretrain_cost_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--methods", default="moco,end-to-end", metavar="A,B", help="what to compare (moco,end-to-end)")
    parser.add_argument("--batch-sizes", type=counts, default=[32, 64], metavar="N,M,...", help="on one device (32,64)")
    parser.add_argument("--arch", default="resnet50", metavar="NAME", help="the network (resnet50)")
    parser.add_argument("--image-size", type=count, default=224, metavar="N", help="side of a view in pixels (224)")
    parser.add_argument(
        "--steps", type=count, default=10, metavar="N", help="steps to time, after one that is not (10)"
    )
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="for records (results)")
    add_device_flags(parser)


def _pretrain_cost(args: argparse.Namespace) -> None:
    import time

    from benchmarks.pretrain_cost import cost_result
    from benchmarks.result_files import write_result
    from mocobench.runtime.device import choose_device, choose_precision
    from mocobench.runtime.environment import code_version, environment_stamp
    from mocobench.runtime.files import require_writable
    from pretrain.cost import cost_recipe, measure_apart, settings_of

    require_writable(args.results, flag="--results")
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
