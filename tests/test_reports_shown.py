"""The report where people see it: LaTeX sets it, and a browser shows the page and sorts its tables."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from reports.collect import collect_results
from reports.report import build_report, draw_report_pictures, render_report

EVIL = "a|b<script>_&%$#{}~^\\=cmd \"q\" 'r' -- ?` «é» þ ħ \u4e2d"
DOCUMENT = r"\documentclass{article}\usepackage{array,booktabs,graphicx}\begin{document}\input{report}\end{document}"


@pytest.fixture
def folder(tmp_path: Path, make_result: Any) -> Path:
    """Records of the paper's protocol, of which one backbone's name holds what every format must escape."""
    runs = [
        make_result({"top1": top1 + seed}, protocol="imagenet-linear/moco@1", seed=seed, digest=name, backbone=name)
        for name, top1 in (("b", 9.0), (EVIL, 67.0), ("c", 8.0))
        for seed in (0, 1)
    ]
    (tmp_path / "results").mkdir()
    for number, run in enumerate(runs):
        (tmp_path / "results" / f"{number}.json").write_text(run.to_json())
    return tmp_path / "results"


def test_latex_sets_the_report(folder: Path, tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex, with array, booktabs and graphicx, is not installed")
    collection = collect_results([folder])
    place = tmp_path / "my pics (1)  é_~^&$#%{}\\"
    pictures = draw_report_pictures(collection, folder=place, out=tmp_path / "report.tex")
    place.mkdir()
    for picture in pictures:
        (place / f"{picture.name}.png").write_bytes(picture.png)
    (tmp_path / "report.tex").write_text(render_report(collection, format="latex", pictures=pictures))
    (tmp_path / "paper.tex").write_text(DOCUMENT)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    # Tables and pictures are as wide as the text at most; in a card, a word that cannot be broken may run over.
    lines = (tmp_path / "report.tex").read_text().splitlines()
    for first, last in re.findall(r"Overfull \\hbox .* at lines (\d+)--(\d+)", done.stdout):
        too_wide = "\n".join(lines[int(first) - 1 : int(last)])
        assert "tabular" not in too_wide
        assert "includegraphics" not in too_wide


class FirstTable(HTMLParser):
    """The rows of a page's first table, by their cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.feed(text[text.index("<tbody>") : text.index("</tbody>")])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


def after_clicks(page: str, tmp_path: Path, *columns: int) -> list[list[str]]:
    """The first table's rows after clicks on these columns' heads, as a browser has them."""
    browser = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
    )
    if not browser:
        pytest.skip("no chromium or google-chrome is installed")
    clicks = "".join(f"document.querySelectorAll('thead th')[{column}].click();" for column in columns)
    # The page allows no script but its own: for the clicks alone, that is taken out.
    open_page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    file = tmp_path / "page.html"
    file.write_text(open_page.replace("</body>", f"<script>{clicks}</script></body>"))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return FirstTable(done.stdout).rows


def test_a_browser_sorts_the_tables(folder: Path, tmp_path: Path) -> None:
    page = build_report([folder], format="html")
    kind, name, top1 = 0, 1, 3
    as_written = after_clicks(page, tmp_path)
    assert as_written[0][name].startswith(EVIL)
    down, up = (after_clicks(page, tmp_path, *[top1] * clicks) for clicks in (1, 2))
    values = [float(row[top1].split()[0]) for row in down]
    assert values == sorted(values, reverse=True)
    assert [row[top1] for row in up] != [row[top1] for row in down]
    assert [float(row[top1].split()[0]) for row in up] == sorted(values)
    assert [row[kind] for row in after_clicks(page, tmp_path, kind)][:3] == ["measured"] * 3


def test_a_cell_without_a_number_stays_at_the_end(tmp_path: Path, make_result: Any) -> None:
    (tmp_path / "results").mkdir()
    random = make_result({"top1": 5.0}, backbone="random")
    for number, run in enumerate((make_result({"top1": 7.0}), make_result({"top1": 4.0}, backbone="low"), random)):
        (tmp_path / "results" / f"{number}.json").write_text(run.to_json())
    page = build_report([tmp_path / "results"], format="html")
    gain = 4
    rows = [[row[gain] for row in after_clicks(page, tmp_path, *[gain] * clicks)] for clicks in (1, 2)]
    assert rows == [["+2.00", "−1.00", "–"], ["−1.00", "+2.00", "–"]]
