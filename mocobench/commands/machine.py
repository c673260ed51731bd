"""`mocobench demo` and `doctor`."""

import argparse
from pathlib import Path
from typing import Any

from mocobench.commands.parser import add_command, add_seed_flag


def add_demo(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = add_command(commands, common, "demo", "run the whole chain on a small generated picture world", _demo)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for everything it makes (demo)")
    add_seed_flag(parser)


def _demo(args: argparse.Namespace) -> None:
    from mocobench.demo import run_demo

    run_demo(args.out, seed=args.seed)


def add_doctor(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = add_command(
        commands, common, "doctor", "say what this machine can do, what is missing and what it costs", _doctor
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def _doctor(args: argparse.Namespace) -> None:
    from mocobench.doctor import examine, to_json, to_text

    findings = examine()
    print(to_json(findings) if args.json else to_text(findings))
