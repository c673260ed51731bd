"""`mocobench report` and `published`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mocobench.commands.parser import add_command

if TYPE_CHECKING:
    from benchmarks.result import Result
    from reports.formats.blocks import Picture


def add_report(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = add_command(commands, common, "report", "tables of results beside the published numbers", _report)
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS_DIR", help="folders of records")
    parser.add_argument(
        "--format", default="markdown", metavar="markdown|latex|csv|html", help="what to write (markdown)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="for the report (standard output)")
    parser.add_argument("--check", type=Path, metavar="FILE", help="fail unless FILE holds this report; write nothing")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="draw pictures there, as SVG and PNG (none)")
    parser.add_argument("--curves", type=Path, metavar="FILE", help="draw the training curves too, as a PNG")
    parser.add_argument("--runs", type=Path, metavar="FILE", help="write every metric of every run too, as CSV")


def _report(args: argparse.Namespace) -> None:
    from reports.cycle_search import paused_cycle_search

    with paused_cycle_search():
        _write_report(args)


def _write_report(args: argparse.Namespace) -> None:
    from mocobench.runtime.files import atomic_file
    from reports.collect import collect_results
    from reports.report import check_format, check_report, draw_report_pictures, render_report

    check_format(args.format)
    collection = collect_results(args.results)
    num_left_out = len(collection.left_out)
    if num_left_out:
        files = "1 file is" if num_left_out == 1 else f"{num_left_out} files are"
        print(f"warning: {files} left out; the report lists why", file=sys.stderr)
    is_drawn = args.pictures is not None or args.format == "html"
    place = args.out or args.check
    pictures = draw_report_pictures(collection, folder=args.pictures, out=place) if is_drawn else ()
    text = render_report(collection, format=args.format, pictures=pictures)
    if args.check is not None:
        check_report(text, args.check)
        print(f"{args.check} holds the report of these records")
        return
    for path, content in _contents(args, text, pictures, collection.results).items():
        with atomic_file(path) as temporary:
            temporary.write_bytes(content)
    if args.out is None:
        print(text, end="")
    else:
        print(f"wrote {args.out}")


def _contents(
    args: argparse.Namespace, text: str, pictures: Sequence["Picture"], results: Sequence["Result"]
) -> dict[Path, bytes]:
    """Every file that was asked for and what it will hold: all is drawn before the first is written."""
    files: dict[Path, bytes] = {}
    for picture in pictures if args.pictures else ():
        files[args.pictures / f"{picture.name}.svg"] = picture.svg
        files[args.pictures / f"{picture.name}.png"] = picture.png
    if args.curves is not None:
        from reports.pictures.loss_curves import draw_curves

        files[args.curves] = draw_curves(results)
    if args.runs is not None:
        from reports.frame import results_csv

        files[args.runs] = results_csv(results).encode("utf-8", "replace")  # JSON can name half of a character
    if args.out is not None:
        files[args.out] = text.encode()
    return files


def add_published(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = add_command(commands, common, "published", "list and cite the published numbers", _published)
    parser.add_argument("--protocol", default="", metavar="ID|TASK", help="only numbers of this protocol or task (all)")
    parser.add_argument("--method", default="", metavar="NAME", help="only numbers of this method (all)")
    parser.add_argument("--source", default="", metavar="NAME", help="only numbers of this source (all)")
    parser.add_argument(
        "--checked", default="", metavar="original|transcription|unchecked", help="only numbers checked so (all)"
    )
    parser.add_argument("--disagreements", action="store_true", help="only what two sources print differently (all)")
    parser.add_argument(
        "--format", default="markdown", metavar="markdown|latex|csv|html|bibtex", help="what to write (markdown)"
    )


def _published(args: argparse.Namespace) -> None:
    from reports.catalogue import Wanted, list_published

    wanted = Wanted(args.protocol, args.method, args.source, args.checked, args.disagreements)
    print(list_published(wanted, format=args.format), end="")
