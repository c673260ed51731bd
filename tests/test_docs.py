"""The documents say what the records say, and name commands and files that exist."""

import json
import re
from pathlib import Path

import pytest

from mocobench.cli import build_parser
from reports.report import build_report
from tests.perf.page import page

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
RECORDS = {
    DOCS / "first-run.md": DOCS / "results",
    DOCS / "detection.md": DOCS / "detection" / "results",
    DOCS / "classification.md": DOCS / "classification" / "results",
    DOCS / "cifar10.md": DOCS / "cifar10",
}
DOCUMENTS = (ROOT / "README.md", *sorted(DOCS.glob("*.md")))


@pytest.mark.parametrize("document", RECORDS, ids=lambda path: path.name)
def test_a_document_holds_the_report_of_its_records(document: Path) -> None:
    assert build_report([RECORDS[document]]) in document.read_text(encoding="utf-8")


@pytest.mark.parametrize("document", RECORDS, ids=lambda path: path.name)
def test_a_document_shows_the_command_of_each_of_its_records(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    records = list(RECORDS[document].glob("*.json"))
    assert records
    for path in records:
        assert " ".join(json.loads(path.read_text())["command"]) in text, path.name


def test_performance_page_shows_its_figures() -> None:
    figures = json.loads((DOCS / "performance.json").read_text(encoding="utf-8"))
    assert page(figures) == (DOCS / "performance.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_the_documents_parse(document: Path) -> None:
    lines = re.findall(r"^    mocobench (.+?)(?:  +#.*)?$", document.read_text(encoding="utf-8"), re.MULTILINE)
    assert lines or document not in (ROOT / "README.md", *RECORDS)
    for line in lines:
        argv = line.split()
        assert hasattr(build_parser(argv).parse_args(argv), "run"), line


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_in_the_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
        assert target.startswith("http") or (document.parent / target).exists(), target
