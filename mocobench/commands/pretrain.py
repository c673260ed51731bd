"""`mocobench recipes` and `pretrain`."""

import argparse
from pathlib import Path
from typing import Any

from mocobench.commands.parser import (
    RESUME_HELP,
    add_command,
    add_run_flags,
    command_of,
    count,
    count_or_none,
    positive,
)
from mocobench.runtime.errors import UserError

# Settings of a recipe that are flags: their type, and what they are.
RECIPE_FLAGS: dict[str, tuple[type, str]] = {
    "arch": (str, "the network: resnet18, resnet34 or resnet50"),
    "epochs": (int, "passes over the images"),
    "batch_size": (int, "images in a step, over all processes; the learning rate is scaled with it"),
    "bn_groups": (int, "groups of a batch with BN statistics of their own: on one device, the devices it plays"),
    "learning_rate": (float, "at the start, for the whole batch"),
    "image_size": (int, "side of a view in pixels"),
    "queue_size": (int, "MoCo: keys in the queue"),
    "key_momentum": (float, "MoCo: momentum of the key encoder, from 0 to 1"),
    "temperature": (float, "of the softmax over similarities"),
    "symmetric": (bool, "MoCo: each view is the query once and the key once"),
}
METAVARS = {str: "NAME", int: "N", float: "X"}


def add_recipes(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = add_command(
        commands, common, "recipes", "print pretraining recipes with every value and its source", _recipes
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="print this recipe alone (all)")


def _recipes(args: argparse.Namespace) -> None:
    from pretrain.cards import card
    from pretrain.recipes import RECIPES, choose_recipe

    chosen = [choose_recipe(args.name)] if args.name else list(RECIPES.values())
    print("\n\n".join(card(recipe) for recipe in chosen))


def add_pretrain(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = add_command(
        commands, common, "pretrain", "train a backbone from a folder of images: MoCo, SimCLR or end-to-end", _pretrain
    )
    parser.add_argument("--recipe", required=True, metavar="NAME", help="one that `mocobench recipes` prints")
    parser.add_argument(
        "--data",
        required=True,
        type=Path,
        metavar="DIR|SHARDS",
        help="folder whose train/ has images or .tar shards, or the shards, 'train-{0000..0146}.tar' in quotes",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="for checkpoints, metrics and run.json")
    settings = parser.add_argument_group(
        "settings of the recipe", "Each replaces the recipe's value; `mocobench recipes NAME` prints that."
    )
    for name, (kind, meaning) in RECIPE_FLAGS.items():
        flag = f"--{name.replace('_', '-')}"
        if kind is bool:
            settings.add_argument(flag, dest=name, action=argparse.BooleanOptionalAction, help=meaning)
        else:
            settings.add_argument(flag, dest=name, type=kind, metavar=METAVARS[kind], help=meaning)
    parser.add_argument(
        "--resume",
        default="auto",
        metavar="auto|never|PATH",
        help=f"{RESUME_HELP}; PATH: go on from that checkpoint (auto)",
    )
    parser.add_argument(
        "--checkpoint-every",
        type=count,
        default=1000,
        metavar="N",
        help="save every N steps, besides after each epoch (1000)",
    )
    parser.add_argument(
        "--checkpoint-minutes",
        type=positive,
        default=0.0,
        metavar="M",
        help="also save when the last checkpoint is M minutes old (off)",
    )
    parser.add_argument(
        "--keep-every",
        type=count_or_none,
        default=0,
        metavar="N",
        help="keep a numbered checkpoint of every N epochs (of the last epoch alone)",
    )
    parser.add_argument(
        "--knn-every",
        type=count,
        default=0,
        metavar="N",
        help="measure the accuracy of a kNN classifier every N epochs (never)",
    )
    parser.add_argument(
        "--knn-data",
        type=Path,
        metavar="DIR",
        help="labelled folder with train/ and val/ for --knn-every (the one of --data)",
    )
    parser.add_argument(
        "--on-bad-image",
        choices=("stop", "skip"),
        default="stop",
        help="an image that cannot be read: stop the run, or skip it for another and name it in run.json (stop)",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile the encoders: costs a minute or more at first; see whether it pays on your device",
    )
    add_run_flags(parser)


def _pretrain(args: argparse.Namespace) -> None:
    from mocobench.runtime.device import check_compiler, choose_device, choose_precision
    from mocobench.runtime.distributed import is_main, process_group
    from pretrain.cards import card
    from pretrain.checkpoint import last_checkpoint
    from pretrain.recipes import choose_recipe, customise
    from pretrain.run import TrainingRun
    from pretrain.train import pretrain

    if args.knn_data is not None and not args.knn_every:
        raise UserError(f"--knn-data {args.knn_data}: expected --knn-every with it, found none; add --knn-every EPOCHS")
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
        try:
            pretrain(run)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_how_to_go_on(last_checkpoint(run.out), run.resume)) from None


def _how_to_go_on(kept: Path | None, resume: str) -> str:
    """What to type after an interrupt: `--resume never` would refuse the folder that now holds a checkpoint."""
    if kept is None:
        return "no checkpoint yet"
    change = " without `--resume never`" if resume == "never" else ""
    return f"the same command{change} goes on from {kept}"
