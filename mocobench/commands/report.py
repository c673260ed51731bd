"""`mocobench report` and `published`."""

import argparse
import sys
from pathlib import Path
from typing import Any

from mocobench.commands.parser import add_command


def add_report(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = add_command(commands, common, "report", "tables of results beside the published numbers", _report)
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS_DIR")
    parser.add_argument("--format", default="markdown", metavar="markdown|latex|csv|html", help="(markdown)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="(standard output)")
    parser.add_argument("--check", type=Path, metavar="FILE", help="fail unless FILE holds this report; write nothing")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="draw pictures there, as SVG and PNG")
    parser.add_argument("--curves", type=Path, metavar="FILE", help="draw the training curves too, as a PNG")
    parser.add_argument("--runs", type=Path, metavar="FILE", help="write every metric of every run too, as CSV")


def _report(args: argparse.Namespace) -> None:
    from reports.cycle_search import paused_cycle_search

    with paused_cycle_search():
        _write_report(args)


def _write_report(args: argparse.Namespace) -> None:
    from mocobench.runtime.files import atomic_file, write_text
    from reports.collect import collect_results
    from reports.report import check_format, check_report, draw_report_pictures, render_report

    check_format(args.format)
    collection = collect_results(args.results)
    num_left_out = len(collection.left_out)
    if num_left_out:
        files = "1 file is" if num_left_out == 1 else f"{num_left_out} files are"
        print(f"warning: {files} left out; the report lists why", file=sys.stderr)
    is_drawn = args.pictures is not None or args.format == "html"
    pictures = draw_report_pictures(collection, folder=args.pictures, out=args.out) if is_drawn else ()
    text = render_report(collection, format=args.format, pictures=pictures)
    if args.check is not None:
        check_report(text, args.check)
        print(f"{args.check} holds the report of these records")
        return
    for picture in pictures if args.pictures else ():
        for ending, content in (("svg", picture.svg), ("png", picture.png)):
            with atomic_file(args.pictures / f"{picture.name}.{ending}") as path:
                path.write_bytes(content)
    if args.curves is not None:
        from reports.pictures.loss_curves import draw_curves

        with atomic_file(args.curves) as path:
            path.write_bytes(draw_curves(collection.results))
    if args.runs is not None:
        from reports.frame import results_frame

        table = results_frame(collection.results).to_csv(index=False)
        write_text(args.runs, table.encode("utf-8", "replace").decode())  # JSON can name half of a character
    if args.out is None:
        print(text, end="")
    else:
        write_text(args.out, text)
        print(f"wrote {args.out}")


def add_published(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = add_command(commands, common, "published", "list and cite the published numbers", _published)
    parser.add_argument("--protocol", default="", metavar="ID|TASK", help="(all)")
    parser.add_argument("--method", default="", metavar="NAME", help="(all)")
    parser.add_argument("--source", default="", metavar="NAME", help="(all)")
    parser.add_argument("--checked", default="", metavar="original|transcription|unchecked", help="(all)")
    parser.add_argument("--disagreements", action="store_true", help="only what two sources print differently")
    parser.add_argument("--format", default="markdown", metavar="markdown|latex|csv|html|bibtex", help="(markdown)")


def _published(args: argparse.Namespace) -> None:
    from reports.catalogue import Wanted, list_published

    wanted = Wanted(args.protocol, args.method, args.source, args.checked, args.disagreements)
    print(list_published(wanted, format=args.format), end="")
