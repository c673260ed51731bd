"""The parser of the command line, and the flags and types that several commands share."""

import argparse
from contextlib import suppress
from typing import Any, NoReturn

from mocobench.runtime.errors import UserError

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "fp32", "bf16")
LARGEST_SEED = 2**32 - 1  # what every generator takes
RESUME_HELP = "(auto: continue what --out holds)"


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is one line, like every other user error."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see `{self.prog} --help`")


def add_command(commands: Any, common: argparse.ArgumentParser, name: str, help_text: str, run: Any) -> Parser:
    parser: Parser = commands.add_parser(name, help=help_text, description=help_text, parents=[common])
    parser.set_defaults(run=run)
    return parser


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=seed, default=0)
    parser.add_argument("--device", choices=DEVICES, default="auto")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto")
    parser.add_argument("--workers", type=count_or_none, default=2, help="processes that load images (2)")


def add_source_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--from", dest="source", default="auto", metavar="auto|NAME", help="the format (auto)")
    parser.add_argument("--encoder", metavar="NAME", help="of files with two: query, key, ... (the authors' choice)")


def command_of(args: argparse.Namespace) -> tuple[str, ...]:
    """The command line as it can be typed again."""
    return ("mocobench", *args.argv)


def count(text: str) -> int:
    return _whole(text, least=1)


def count_or_none(text: str) -> int:
    return _whole(text, least=0)


def counts(text: str) -> list[int]:
    return [count(part) for part in text.split(",")]


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
