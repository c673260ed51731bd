"""docs/formats.md says what the code does."""

import inspect
from pathlib import Path

from transfer.formats import EXAMPLE, page
from transfer.load import source_formats

PAGE = Path(__file__).resolve().parents[1] / "docs" / "formats.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m transfer.formats > docs/formats.md"


def test_every_format_has_its_rows() -> None:
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    for name, module in source_formats().items():
        assert sum(f"| {module.SUMMARY} |" in row and row.startswith(f"| `{name}` |") for row in rows) == len(
            module.LAYOUTS
        )


def test_a_row_by_hand() -> None:
    row = (
        "| `swav` | checkpoint or published weights of the SwAV authors | torch: `conv1.weight` in `state_dict` with "
        "`projection_head.*` | names | RGB 0–1, mean 0.485 0.456 0.406, std 0.228 0.224 0.225 |  | "
        "`projection_head.*` projection head, `prototypes.*` prototypes |"
    )
    assert row in page().splitlines()


def test_a_format_is_added_in_under_forty_lines() -> None:
    assert len(inspect.getsource(EXAMPLE).splitlines()) < 40
