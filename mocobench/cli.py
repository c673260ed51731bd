"""The command `mocobench`: parses, calls one function of one stage, exits.

Exit status: 0 done; 2 for anything the user can mend, as one line on standard error; 1 for our own faults.
Nothing heavy is imported before a sub-command runs, so that help is instant.
"""

import argparse
import sys

from benchmarks.result import RecordError
from mocobench import __version__
from mocobench.commands.bench import add_bench, add_protocols
from mocobench.commands.machine import add_demo, add_doctor
from mocobench.commands.parser import Parser
from mocobench.commands.pretrain import add_pretrain, add_recipes
from mocobench.commands.report import add_published, add_report
from mocobench.commands.transfer import add_convert, add_inspect
from mocobench.runtime.errors import UserError


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
    add_demo(commands, common)
    add_doctor(commands, common)
    add_recipes(commands, common)
    add_pretrain(commands, common)
    add_inspect(commands, common)
    add_convert(commands, common)
    add_protocols(commands, common)
    add_bench(commands, common, argv)
    add_report(commands, common)
    add_published(commands, common)
    return parser
