"""The parser of the command line, and the flags and types that several commands share."""

import argparse
from contextlib import suppress
from math import isfinite
from typing import Any, NoReturn

from mocobench.runtime.errors import UserError

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "fp32", "bf16")
LARGEST_SEED = 2**32 - 1  # what every generator takes
RESUME_HELP = "auto: go on with the run that --out holds; never: stop if --out holds one"


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is one line, like every other user error."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see `{self.prog} --help`")


def add_command(
    commands: Any, common: argparse.ArgumentParser, name: str, help_text: str, run: Any, **texts: str
) -> Parser:
    """Add a command; its parser is in the arguments too, for complaints about them. `texts` are argparse's own."""
    texts = {"help": help_text, "description": help_text, **texts}
    parser: Parser = commands.add_parser(name, parents=[common], **texts)
    parser.set_defaults(run=run, parser=parser)
    return parser


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    add_seed_flag(parser)
    add_device_flags(parser)
    parser.add_argument(
        "--workers",
        type=count_or_none,
        default=2,
        metavar="N",
        help="processes that load images; 0: the main one does (2)",
    )


def add_seed_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of all that is drawn at random (0)")


def add_device_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", choices=DEVICES, default="auto", help="auto: cuda where there is a CUDA device, else cpu (auto)"
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="auto: bf16 where the hardware has it, else fp32 (auto)",
    )


def add_source_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from",
        dest="source",
        default="auto",
        metavar="auto|NAME",
        help="format of the checkpoint (auto: told from its content)",
    )
    parser.add_argument(
        "--encoder", metavar="NAME", help="of a checkpoint with two: query, key, ... (its authors' choice)"
    )
    for flag, meaning in (("--mean", "subtracted from RGB values from 0 to 1"), ("--std", "by which they are divided")):
        parser.add_argument(
            flag,
            type=channels,
            metavar="R,G,B",
            help=f"{meaning}, for a checkpoint that does not say (its format's, which `inspect` shows)",
        )


def pixels_of(args: argparse.Namespace) -> Any:
    """The input convention that --mean and --std state, a transfer.backbone.InputSpec, or None.

    Raises:
        UserError: one was given without the other.
    """
    if args.mean is None and args.std is None:
        return None
    if args.mean is None or args.std is None:
        raise UserError("--mean and --std: expected both or neither, found one; values as they are: 0,0,0 and 1,1,1")
    from transfer.backbone import InputSpec

    try:
        return InputSpec(args.mean, args.std)
    except ValueError as error:
        raise UserError(f"--std {','.join(map(str, args.std))}: expected numbers above 0") from error


def command_of(args: argparse.Namespace) -> tuple[str, ...]:
    """The command line as it can be typed again."""
    return ("mocobench", *args.argv)


def count(text: str) -> int:
    return _whole(text, least=1)


def count_or_none(text: str) -> int:
    return _whole(text, least=0)


def counts(text: str) -> list[int]:
    return [count(part) for part in text.split(",")]


def channels(text: str) -> tuple[float, ...]:
    with suppress(ValueError):
        values = tuple(float(part) for part in text.split(","))
        if len(values) == 3 and all(map(isfinite, values)):
            return values
    raise argparse.ArgumentTypeError(f"expected three numbers with commas between them, found {text or 'none'}")


def seed(text: str) -> int:
    return _whole(text, least=0, most=LARGEST_SEED)


def _whole(text: str, *, least: int, most: int | None = None) -> int:
    with suppress(ValueError):
        if least <= int(text) and (most is None or int(text) <= most):
            return int(text)
    to = f" to {most}" if most is not None else ""
    raise argparse.ArgumentTypeError(f"expected a whole number from {least}{to}, found {text or 'none'}")


def positive(text: str) -> float:
    with suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise argparse.ArgumentTypeError(f"expected a number above 0, found {text or 'none'}")
