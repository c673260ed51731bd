"""docs/report-example.* is the report of this repository's own records; README shows a table and a picture of it."""

import re
from pathlib import Path

import pytest

from reports.collect import collect_results
from reports.report import draw_report_pictures, render_report

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
FOLDERS = [DOCS / "results", DOCS / "detection" / "results", DOCS / "pretraining"]
ENDINGS = {"markdown": "md", "latex": "tex", "csv": "csv", "html": "html"}
AGAIN = "mocobench report docs/results docs/detection/results docs/pretraining --pictures docs/report-example"


@pytest.mark.parametrize("format", ENDINGS)
def test_the_example_is_the_report_of_the_records(format: str) -> None:
    file = DOCS / f"report-example.{ENDINGS[format]}"
    collection = collect_results(FOLDERS)
    pictures = draw_report_pictures(collection, folder=DOCS / "report-example", out=file)
    text = render_report(collection, format=format, pictures=pictures)
    # How a picture is drawn is matplotlib's, and changes with its version.
    shown, committed = (re.sub(r"base64,[\w+/=]+", "", one) for one in (text, file.read_text(encoding="utf-8")))
    command = f"{AGAIN} --format {format} --out docs/{file.name}"
    assert shown == committed, f"stale; write it again with {command}"
    assert f"    {command}\n" in (DOCS / "reports.md").read_text(encoding="utf-8")


def test_readme_shows_a_table_and_a_picture_of_the_example() -> None:
    readme, example = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/report-example.md"))
    section = readme[readme.index("## The report") : readme.index("## What this version shows")]
    table = [line for line in section.splitlines() if line.startswith("|")]
    assert "\n".join(table) in example
    assert len(table) > 3
    (picture,) = re.findall(r"!\[.*?\]\(docs/(.*?)\)", section)
    assert f"]({picture})" in example
    assert AGAIN.split(" --pictures")[0] in section
