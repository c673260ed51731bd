"""The documents say what the records say, and name commands and files that exist."""

import json
import re
from pathlib import Path

import pytest

from mocobench.cli import build_parser
from reports.report import build_report

ROOT = Path(__file__).resolve().parents[1]
FIRST_RUN = ROOT / "docs" / "first-run.md"
DOCUMENTS = (ROOT / "README.md", FIRST_RUN)


def test_first_run_holds_the_report_of_its_records() -> None:
    assert build_report([ROOT / "docs" / "results"]) in FIRST_RUN.read_text(encoding="utf-8")


def test_first_run_shows_the_command_of_every_record() -> None:
    text = FIRST_RUN.read_text(encoding="utf-8")
    for path in (ROOT / "docs" / "results").glob("*.json"):
        assert " ".join(json.loads(path.read_text())["command"]) in text, path.name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_the_documents_parse(document: Path) -> None:
    lines = re.findall(r"^    mocobench (.+?)(?:  +#.*)?$", document.read_text(encoding="utf-8"), re.MULTILINE)
    assert lines
    for line in lines:
        argv = line.split()
        assert hasattr(build_parser(argv).parse_args(argv), "run"), line


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_in_the_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
        assert target.startswith("http") or (document.parent / target).exists(), target
