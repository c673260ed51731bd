"""`mocobench inspect` and `convert`."""

import argparse
from pathlib import Path
from typing import Any

from mocobench.commands.parser import add_command, add_source_flags, pixels_of


def add_inspect(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = add_command(commands, common, "inspect", "say what a checkpoint holds", _inspect)
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="the file to look at")
    add_source_flags(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def _inspect(args: argparse.Namespace) -> None:
    from transfer.inspect import inspect, to_json, to_text

    findings = inspect(args.checkpoint, args.source, args.encoder, pixels_of(args))
    print(to_json(findings) if args.json else to_text(findings))


def add_convert(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = add_command(commands, common, "convert", "translate a checkpoint and prove that nothing changed", _convert)
    parser.add_argument("checkpoint", type=Path, metavar="SRC", help="the checkpoint to read")
    parser.add_argument("target", type=Path, metavar="DST", help="the file to write; DST.json gets the proof")
    parser.add_argument(
        "--to", required=True, metavar="NAME", help="detectron2, huggingface, moco, safetensors, timm or torchvision"
    )
    add_source_flags(parser)


def _convert(args: argparse.Namespace) -> None:
    from benchmarks.detection.embedded_trunk import run_by_embedded_engine
    from transfer.convert import convert, to_text

    report = convert(
        args.checkpoint,
        args.target,
        to=args.to,
        source=args.source,
        encoder=args.encoder,
        pixels=pixels_of(args),
        witnesses={"by the embedded engine": run_by_embedded_engine},
    )
    print(to_text(report))
