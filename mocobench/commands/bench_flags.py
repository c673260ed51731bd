"""The flags of `mocobench bench TASK`: those that every task has, and how classification and detection run."""

from pathlib import Path

from mocobench.commands.parser import RESUME_HELP, Parser, add_run_flags, add_source_flags, count

BAD_CHOICES = ("stop", "skip")
BAD_ANNOTATION_HELP = "an object that cannot be used: stop the run, or skip it and list it in the record (stop)"


def add_common_flags(parser: Parser, *, protocols: str) -> None:
    """The flags of every task; `protocols` says which names `--protocol` takes."""
    parser.add_argument(
        "--backbone",
        required=True,
        metavar="PATH|random",
        help="a checkpoint that `mocobench inspect` can read, or random: a network drawn from --seed, the baseline",
    )
    parser.add_argument(
        "--arch",
        metavar="NAME",
        help="the network of --backbone random, such as resnet18 (resnet50)",
    )
    add_source_flags(parser)
    parser.add_argument("--name", metavar="NAME", help="what tables call the backbone (its file, without the ending)")
    parser.add_argument(
        "--data", required=True, type=Path, metavar="DIR", help="folder with the task's data; nothing is downloaded"
    )
    parser.add_argument("--protocol", default="paper", metavar="NAME", help=f"{protocols} (paper)")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="for the record (results)")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="for curves, pictures, the model, and of a task with --resume what a killed run goes on from (none)",
    )
    parser.add_argument(
        "--trials",
        type=count,
        metavar="N",
        help="run the N seeds from --seed on, without those that have their record in --results (one run)",
    )
    add_run_flags(parser)


def add_classification_flags(parser: Parser, task: str) -> None:
    """How to run; none of it changes the protocol, but `--label-list` the labelled images."""
    flags = parser.add_argument_group("running a classification task")
    flags.add_argument(
        "--on-bad-image",
        choices=BAD_CHOICES,
        default="stop",
        help="an image that cannot be read: stop the run, or skip it, count it and name it in the record (stop)",
    )
    if task == "voc-svm":
        flags.add_argument("--on-bad-annotation", choices=BAD_CHOICES, default="stop", help=BAD_ANNOTATION_HELP)
    if task in ("imagenet-linear", "imagenet-semi"):
        flags.add_argument("--resume", choices=("auto", "never"), default="auto", help=f"{RESUME_HELP} (auto)")
        flags.add_argument(
            "--checkpoint-every",
            type=count,
            default=1000,
            metavar="N",
            help="save in --out every N steps, besides after each epoch (1000)",
        )
    if task == "imagenet-semi":
        flags.add_argument(
            "--label-list",
            type=Path,
            metavar="FILE",
            help="names of the images with labels, such as SimCLR's own list (drawn from --seed)",
        )
    else:
        flags.add_argument(
            "--features",
            type=Path,
            metavar="DIR",
            help="keep features of frozen backbones there, for later runs (none)",
        )


def add_detection_flags(parser: Parser) -> None:
    """How to run; the plan for fewer devices and a detector that is trained already change the protocol."""
    flags = parser.add_argument_group("running a detection task")
    flags.add_argument(
        "--engine",
        default="auto",
        metavar="auto|embedded|detectron2",
        help="auto: detectron2, which runs in fp32, where it is installed, else embedded (auto)",
    )
    flags.add_argument("--on-bad-annotation", choices=BAD_CHOICES, default="stop", help=BAD_ANNOTATION_HELP)
    flags.add_argument(
        "--images-per-pass",
        type=count,
        metavar="N",
        help="embedded engine only: run a process's share of the batch in passes of N images (in one)",
    )
    flags.add_argument(
        "--fewer-devices",
        type=count,
        default=1,
        metavar="K",
        help="divide batch and learning rate by K, multiply the schedule by K; makes the protocol custom (1)",
    )
    flags.add_argument("--resume", choices=("auto", "never"), default="auto", help=f"{RESUME_HELP} (auto)")
    flags.add_argument(
        "--detector",
        type=Path,
        metavar="PATH",
        help="evaluate this model_final.pth of either engine and train nothing; makes the protocol custom (none)",
    )
    flags.add_argument(
        "--checkpoint-every", type=count, default=1000, metavar="N", help="save in --out every N iterations (1000)"
    )
    flags.add_argument(
        "--visualize",
        type=count,
        default=0,
        metavar="N",
        help="draw N test images, and precision-recall curves, in --out (none)",
    )
