"""The command `mocobench`: parses, calls one function of one stage, exits.

Exit status: 0 done; 2 for anything the user can mend, as one line on standard error; 1 for our own faults; as shells
have it, 130 when interrupted and 141 when whoever reads the output has gone.
Nothing heavy is imported before a sub-command runs, so that help is instant.
"""

import argparse
import errno
import os
import signal
import sys

from mocobench import __version__
from mocobench.commands.bench import add_bench, add_protocols
from mocobench.commands.machine import add_demo, add_doctor
from mocobench.commands.parser import Parser
from mocobench.commands.pretrain import add_pretrain, add_recipes
from mocobench.commands.report import add_published, add_report
from mocobench.commands.transfer import add_convert, add_inspect
from mocobench.runtime.errors import UserError

# Of the system's refusals those that no code here can be at fault for.
NOT_OURS = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP),
    *(errno.ENOSPC, errno.EDQUOT, errno.EIO),
)


def entry_point() -> None:
    """The console script. A single process takes a scheduler's request to end as Ctrl-C; torchrun ends a group."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))


def main(argv: list[str]) -> int:
    """Run one command line and return its exit status."""
    try:
        run(argv)
        sys.stdout.flush()
    except _user_errors() as error:
        if "--debug" in argv:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print("; ".join(["interrupted", *map(str, interrupt.args)]), file=sys.stderr)
        return 130
    except BrokenPipeError:
        _leave_standard_output()
        return 141
    except OSError as error:
        if error.errno not in NOT_OURS or "--debug" in argv:
            raise
        if error.filename is None:
            _leave_standard_output()
        place = error.filename or "standard output or a file (--debug shows where)"
        print(f"error: {place}: the system says {error.strerror}", file=sys.stderr)
        return 2
    return 0


def run(argv: list[str]) -> None:
    """Run one command line, and raise what it raises."""
    parser = build_parser(argv)
    args, unknown = parser.parse_known_args(argv, argparse.Namespace(argv=tuple(argv), parser=parser))
    if unknown:
        args.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if not hasattr(args, "run"):
        parser.error("expected a command")
    args.run(args)


def _user_errors() -> tuple[type[Exception], ...]:
    """What the user can mend; errors in records among it once their module, whose package may lack, is loaded."""
    records = sys.modules.get("benchmarks.result")
    return (UserError,) if records is None else (UserError, records.RecordError)


def _leave_standard_output() -> None:
    """What is still to be written there would be at the exit, and fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
