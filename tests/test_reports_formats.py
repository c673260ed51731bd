"""Four formats, one content; and no text of a record that breaks any of them."""

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mocobench.cli import main
from reports.collect import collect_results
from reports.document import build_document
from reports.formats import comma_separated, html_page, latex
from reports.formats.blocks import Picture, Table
from reports.formats.markdown import render_markdown
from reports.published import load_published
from reports.report import FORMATS, build_report
from reports.trials import group_results

EVIL = "a|b<script>alert(1)</script>`x` $m$ \\cmd {g} & % # _u_ ^ ~ \"q\" 'r' -- ?` [o] *s* =1+1 \u200b\u4e2d"


class Page(HTMLParser):
    """The cells of each table, the texts of notes, and every element that is there."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.elements: list[str] = []
        self.open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")
        self.open = tag

    def handle_endtag(self, tag: str) -> None:
        self.open = ""

    def handle_data(self, data: str) -> None:
        if self.open in ("th", "td"):
            self.tables[-1][-1][-1] += data


@pytest.fixture
def folder(tmp_path: Path, make_result: Any) -> Path:
    """A few records, some of the paper's protocol, and three files that are none."""
    runs = [
        make_result({"top1": 67.0 + seed}, protocol="imagenet-linear/moco@1", seed=seed, digest="d")
        for seed in (0, 1, 2)
    ]
    runs += [make_result({"top1": 9.0}, backbone=EVIL, data="_d|<b>", skipped=("<i>",))]
    runs += [make_result({"top1": 8.0}, backbone="random", data="_d|<b>", skipped=("<i>",))]
    (tmp_path / "results").mkdir()
    for number, run in enumerate(runs):
        (tmp_path / "results" / f"{number}.json").write_text(run.to_json())
    (tmp_path / "results" / "copy<b>.json").write_text(runs[0].to_json())
    (tmp_path / "results" / "future.json").write_text(json.dumps({**json.loads(runs[0].to_json()), "schema": 2}))
    (tmp_path / "results" / "half.json").write_text(runs[0].to_json()[:300])
    return tmp_path / "results"


def tables_in(folder: Path) -> list[list[list[str]]]:
    """What every format has to show: each table's head and lines, spaces and the unprintable made even."""
    collection = collect_results([folder])
    blocks = build_document(group_results(collection.results), load_published(), left_out=collection.left_out)
    return [[list(map(even, line)) for line in (t.heads, *t.lines())] for t in blocks if isinstance(t, Table)]


def even(text: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def test_html_and_csv_hold_the_tables_cell_by_cell(folder: Path) -> None:
    expected = tables_in(folder)
    assert Page(build_report([folder], format="html")).tables == expected
    found: list[list[list[str]]] = []
    for kind, *line in csv.reader(io.StringIO(build_report([folder], format="csv"))):
        if kind == "head":
            found.append([])
        if kind in ("head", "row"):
            found[-1].append(line)
    assert found == expected


def test_markdown_and_latex_hold_as_many_cells_in_each_line(folder: Path) -> None:
    lengths = [[len(line) for line in table] for table in tables_in(folder)]
    markdown = re.findall(r"(?:^\|.*\n)+", build_report([folder]), re.MULTILINE)
    cells = [[len(re.split(r"(?<!\\)\|", line)) - 2 for line in table.splitlines()] for table in markdown]
    assert [[head, *lines] for head, _, *lines in cells] == lengths
    tabulars = re.findall(r"\\toprule\n(.*?)\n\\bottomrule", build_report([folder], format="latex"), re.DOTALL)
    lines = [[line for line in body.split("\n") if line != r"\midrule"] for body in tabulars]
    assert [[len(re.split(r"(?<!\\)&", line)) for line in body] for body in lines] == lengths


@pytest.mark.parametrize("format", FORMATS)
def test_broken_copied_and_future_records_are_listed_not_lost(folder: Path, format: str) -> None:
    text = build_report([folder], format=format)
    section = text[text.index("Records left out") :]
    assert "future.json" in section
    assert "schema 1, found 2" in section
    assert "a copy of results/0.json" in section
    assert "half.json" in section


@pytest.mark.parametrize("format", FORMATS)
def test_a_report_is_the_same_byte_for_byte(folder: Path, tmp_path: Path, format: str) -> None:
    outs = [tmp_path / name for name in ("one", "two")]
    for out in outs:
        assert main(["report", str(folder), "--format", format, "--out", str(out)]) == 0
    assert outs[0].read_bytes() == outs[1].read_bytes()


def test_the_page_needs_nothing_and_runs_only_its_own_script(folder: Path) -> None:
    text = build_report([folder], format="html", pictures=[Picture("p", EVIL, b"<svg/>", b"", "p.svg")])
    page = Page(text)
    assert page.elements.count("script") == 1
    assert not {"link", "iframe", "i", "b"} & set(page.elements)
    assert re.findall(r'(?:src|href)="([^"]{5})', text) == ["data:"]
    assert "default-src 'none'" in text
    assert "http" not in text.replace("http-equiv", "")


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a&b_c%d#e$f", r"a\&b\_c\%d\#e\$f"),
        ("{x}\\y", r"\{x\}\textbackslash{}y"),
        ("~^<|>", r"\textasciitilde{}\textasciicircum{}\textless{}\textbar{}\textgreater{}"),
        ("a--b ?`", r"a-{}-b ?{}\textasciigrave{}"),
        ("1.0 ± 0.2 − 3 ● ★", r"1.0 $\pm$ 0.2 $-$ 3 $\bullet$ $\star$"),
        ("é \u4e2d\n\u200bx", "é [U+4E2D] x"),
    ],
)
def test_latex_escape(text: str, escaped: str) -> None:
    assert latex.escape(text) == escaped


def test_nothing_of_a_record_is_a_command_of_latex(folder: Path) -> None:
    text = build_report([folder], format="latex")
    assert r"\textbackslash{}cmd \{g\} \& \% \# \_u\_" in text
    assert r"\cmd" not in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}")
    assert re.search(r"^\s*\[", text, re.MULTILINE) is None  # would be an option of the line break before it


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("=1+1", "'=1+1"),
        ("@x", "'@x"),
        ("+x", "'+x"),
        ("-x", "'-x"),
        ("+1.50 ± 0.2", "+1.50 ± 0.2"),
        ("-.5", "-.5"),
        ("+17.50", "+17.50"),
        ("-1e-05", "-1e-05"),
        ("+1.50 / +2.00", "'+1.50 / +2.00"),
        ("-2+3+cmd|' /C calc'!A0", "'-2+3+cmd|' /C calc'!A0"),
        ("\uff1d1+1", "'\uff1d1+1"),
        ("a\r\nb", "a b"),
    ],
)
def test_no_csv_field_is_a_formula(text: str, field: str) -> None:
    assert comma_separated.as_text(text) == field


def test_texts_that_keep_their_spaces_are_no_formulas_either() -> None:
    assert comma_separated.no_formula("\t =1") == "'\t =1"


def test_a_picture_in_any_folder_is_linked() -> None:
    picture = Picture("p", "caption", b"", b"", "../my pics (1)/a%b_é.svg")
    assert render_markdown([picture]) == "![caption](../my%20pics%20%281%29/a%25b_%C3%A9.svg)\n"
    (line,) = re.findall(r"includegraphics\[.*?\]\{(.*)\}", latex.render_latex([picture]))
    assert line == r"../my\space pics\space (1)/a\csname c_percent_str\endcsname b_é.png"


def test_html_escape() -> None:
    assert html_page.escape('<a href="x">&\'\n\u200bb') == "&lt;a href=&quot;x&quot;&gt;&amp;&#x27; b"


def test_check_holds_a_committed_file_to_the_records(folder: Path, tmp_path: Path, capsys: Any) -> None:
    committed = tmp_path / "report.md"
    committed.write_text("# By hand\n\n" + build_report([folder]))
    assert main(["report", str(folder), "--check", str(committed)]) == 0
    committed.write_text(committed.read_text().replace("68.00", "68.10"))
    assert main(["report", str(folder), "--check", str(committed)]) == 2
    assert re.search(
        r"error: --check .*report\.md: expected the report .*, found a stale one, without: .*68\.00",
        capsys.readouterr().err,
    )
    assert main(["report", str(folder), "--check", str(tmp_path / "none.md")]) == 2
    assert "none.md: expected a committed report, found" in capsys.readouterr().err


def test_check_sees_the_pictures_from_the_report_that_is_checked(folder: Path, tmp_path: Path) -> None:
    command = ["report", str(folder), "--pictures", str(tmp_path / "docs" / "pictures")]
    assert main([*command, "--out", str(tmp_path / "docs" / "report.md")]) == 0
    assert main([*command, "--check", str(tmp_path / "docs" / "report.md")]) == 0


def test_what_cannot_be_drawn_leaves_nothing(folder: Path, tmp_path: Path, capsys: Any) -> None:
    places = [tmp_path / name for name in ("pictures", "curves.png", "runs.csv", "report.md")]
    flags = [
        str(word) for pair in zip(("--pictures", "--curves", "--runs", "--out"), places, strict=True) for word in pair
    ]
    assert main(["report", str(folder), *flags]) == 2
    assert "error: --curves: expected a record with a loss curve, found none among 5" in capsys.readouterr().err
    assert not any(place.exists() for place in places)


def test_the_command_warns_of_records_that_are_left_out(folder: Path, capsys: Any) -> None:
    assert main(["report", str(folder)]) == 0
    assert "warning: 3 files are left out; the report lists why" in capsys.readouterr().err
