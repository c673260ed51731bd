"""The report as markdown: what stands beside what, and that no record's text can break it."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from benchmarks.result import RecordError, Result
from reports.formats.markdown import escape
from reports.metrics import headlines_of
from reports.report import build_report
from reports.twins import IMAGENET_IMAGES


def report_on(folder: Path, *results: Result) -> str:
    for number, result in enumerate(results):
        (folder / f"{number}.json").write_text(result.to_json())
    return build_report([folder])


def section(text: str, heading: str) -> str:
    """What stands under the first heading that holds these words, down to the next heading."""
    return re.split(r"\n#+ ", text[text.index(heading) :])[0]


def rows_of(text: str, kind: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith(f"| {kind}")]
    return [[cell.strip().strip("*") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_measured_and_published_rows_of_one_protocol_share_a_table(tmp_path: Path, make_result: Any) -> None:
    runs = [
        make_result({"top1": 67.0 + seed, "top5": 88.0}, protocol="imagenet-linear/moco@1", seed=seed, digest="d")
        for seed in (0, 1, 2)
    ]
    table = section(report_on(tmp_path, *runs), "### T1. imagenet-linear/moco@1, on photos")
    (measured,) = rows_of(table, r"**measured")
    assert measured[1:6] == [
        "demo",
        "resnet50, MoCo v2, 20 ep",
        "68.00 ± 1.00 (3)",
        "88.00 ± 0.00 (3)",
        "torch 2.6, fp32",
    ]
    published = {(row[1], row[3]): row for row in rows_of(table, "published")}
    assert published["MoCo v2 (e)", "71.1"][-2:] == ["MoCo v2, Table 1", "●"]
    assert published["MoCo (a)", "66.2"][-1] == "◐"
    assert ("MoCo v2", "67.5 ± 0.2 (5)") in published  # the five printed trials
    assert "SimCLR" not in table  # probed under another protocol


def test_a_row_says_that_its_weights_are_of_another_encoder(tmp_path: Path, make_result: Any) -> None:
    result = make_result({"top1": 67.0}, protocol="imagenet-linear/moco@1")
    known = {"method": "MoCo, MLP head", "recipe": "moco-v2-200ep", "num_images": IMAGENET_IMAGES, "epochs": 200}
    backbones = [
        replace(result.backbone, digest=digest, provenance=known | read)
        for digest, read in (("a", {}), ("b", {"encoder": "key"}))
    ]
    text = report_on(tmp_path, *(replace(result, backbone=backbone) for backbone in backbones))
    told = "resnet50, MoCo, MLP head, moco-v2-200ep, 200 ep"
    assert [row[2] for row in rows_of(section(text, "### T1."), r"**measured")] == [told, f"{told}, key encoder"]
    assert [row[1] for row in rows_of(section(text, "### Table 1"), r"**measured")] == ["demo (a)"]  # the twin is there


def test_simclr_stands_with_both_learning_rate_rules(tmp_path: Path, make_result: Any) -> None:
    text = section(report_on(tmp_path, make_result({"top1": 1.0})), "### Table 2: MoCo v2 against SimCLR")
    rows = {(row[1], row[2], row[3], row[4]): row[5] for row in rows_of(text, "published")}
    assert rows["SimCLR", "linear", "200", "256"] == "61.9"
    assert rows["SimCLR", "sqrt", "200", "256"] == "64.3"
    assert rows["MoCo v2", "–", "200", "256"] == "67.5"


@pytest.mark.parametrize(
    ("recipe", "epochs", "place"),
    [
        ("simclr-256-200ep", 200, ["linear", "200", "256"]),
        ("simclr-sqrt-256-200ep", 200, ["sqrt", "200", "256"]),
        ("simclr-4096-1000ep", 1000, ["–", "1000", "4096"]),
    ],
)
def test_a_measured_simclr_stands_in_table_2(
    tmp_path: Path, make_result: Any, recipe: str, epochs: int, place: list[str]
) -> None:
    run = make_result({"top1": 60.0}, protocol="imagenet-linear/simclr@1")
    provenance = {"format": "moco", "recipe": recipe, "num_images": IMAGENET_IMAGES, "epochs": epochs}
    run = replace(run, backbone=replace(run.backbone, provenance=provenance))
    text = section(report_on(tmp_path, run), "### Table 2: MoCo v2 against SimCLR")
    (measured,) = rows_of(text, r"**measured")
    assert measured[2:6] == [*place, "60.00 (1)"]


def test_the_papers_tables_have_cards_and_show_what_others_print(tmp_path: Path, make_result: Any) -> None:
    run = make_result({"top1": 67.0}, protocol="imagenet-linear/moco@1")
    text = report_on(tmp_path, run)
    ablation = " ".join(section(text, "### Table 1: ablation").split())
    assert "**Measured rows**: their cards are under T1 -" in ablation
    assert "**Protocol**: imagenet-linear/moco@1, voc-detection/moco-c4-24k@1, on the data" in ablation
    assert "57.4 ± 0.2 (5) / 64.0 ± 0.4 (5) in MoCo v2, Table 1 but 82.7 / 57.6 / 64.4 in PixPro" in ablation
    assert "**Protocol**: imagenet-linear/moco@1, imagenet-linear/simclr@1" in section(text, "### Table 2")
    assert "**Protocol**: imagenet-linear/moco@1" in section(text, "### Temperature")


@pytest.mark.parametrize(
    ("change", "heading"),
    [
        ({"protocol": "voc-detection/smoke@1"}, "### T1. Smoke: voc-detection/smoke@1, on photos"),
        (
            {
                "protocol": "voc-detection/custom",
                "base": "voc-detection/moco-c4-24k@1",
                "differs": ("iterations: 24000 -> 60", "test images: 4952 -> 20"),
            },
            "### T1. Custom: changed from voc-detection/moco-c4-24k@1, on photos",
        ),
    ],
)
def test_smoke_and_custom_stand_apart(tmp_path: Path, make_result: Any, change: dict[str, Any], heading: str) -> None:
    text = report_on(tmp_path, make_result({"ap50": 9.0, "ap": 4.0, "ap75": 3.0}, **change))
    table = section(text, heading)
    assert len(rows_of(table, r"**measured")) == 1
    assert rows_of(table, "published") == []
    for differs in change.get("differs", ()):
        assert differs.replace("->", "→") in " ".join(table.split())
    reference = section(text, "### Published, for reference: not comparable with the rows above")
    rows = rows_of(reference, "published")
    assert [row[1] for row in rows[:2]] == ["random", "supervised"]
    assert ["SimCLR", "1000 ep", "81.9", "56.3", "62.5"] in [row[1:6] for row in rows]
    assert "PixPro, README (re-run by PixPro)" in reference
    assert rows_of(reference, r"**measured") == []


def test_a_custom_record_never_meets_published_rows_whatever_its_id(tmp_path: Path, make_result: Any) -> None:
    run = make_result({"top1": 60.0}, protocol="imagenet-linear/moco@1", differs=("epochs: 100 -> 3",))
    assert rows_of(section(report_on(tmp_path, run), "### T1. Custom"), "published") == []


def test_a_single_trial_and_the_difference_to_random(tmp_path: Path, make_result: Any) -> None:
    trained, draw = {"ap50": 5.0, "ap": 2.5, "ap75": 1.0}, {"ap50": 4.0, "ap": 2.0, "ap75": 1.5}
    protocol = "voc-detection/smoke@1"
    runs = [make_result(trained, protocol=protocol), make_result(draw, protocol=protocol, backbone="random")]
    text = report_on(tmp_path, *runs)
    table = section(text, "### T1")
    first, second = rows_of(table, r"**measured")
    assert "AP − random" in table
    assert first[3:7] == ["5.00 (1) ★", "2.50 (1) ★", "1.00 (1) ☆", "+0.50"]
    assert (second[1], second[6]) == ("random", "–")
    assert "demo does not beat random on AP75 (−0.50)" in table
    summary = section(text, "## Summary")
    assert re.search(r"\| demo +\| +2\.50 \(1\) ★ \| +1 of 1 \|", summary)


def test_what_is_said_of_random_in_a_custom_table_and_of_other_seeds(tmp_path: Path, make_result: Any) -> None:
    custom = {"protocol": "imagenet-linear/custom", "base": "imagenet-linear/moco@1", "differs": ("epochs: 100 -> 3",)}
    for folder, changes, is_said in (("custom", custom, False), ("seeds", {}, True)):
        runs = [make_result({"top1": 5.0}, **changes), make_result({"top1": 4.0}, backbone="random", seed=1, **changes)]
        (tmp_path / folder).mkdir()
        assert ("Against random" in report_on(tmp_path / folder, *runs)) is is_said


@pytest.mark.parametrize(("votes", "headline"), [((1, 200, 20), 20), ((1, 200, 10), 200), ((100, 10), 10)])
def test_nearest_neighbours_are_read_by_the_votes_of_published_tables(votes: tuple[int, ...], headline: int) -> None:
    assert headlines_of("imagenet-knn", {f"top1_k{number}" for number in votes}) == (f"top1_k{headline}",)


def test_settings_data_and_skipped_annotations_stand_under_the_table(tmp_path: Path, make_result: Any) -> None:
    skipped = tuple(f"image {i}: empty box" for i in range(7))
    run = make_result({"top1": 1.0}, settings={"epochs": 3, "decay_epochs": [1, 2]}, skipped=skipped, seed=4)
    table = " ".join(section(report_on(tmp_path, run), "### T1").split())
    assert "imagenet-linear/smoke@1: epochs 3; decay_epochs 1,2" in table
    assert "photos, 10 classes; train 60 images (list abababababab); val 20 images (list cdcdcdcdcdcd)" in table
    assert "engine torch 2.6, fp32; seed 4; code 0.1.0 0123456789ab; device a processor x 2" in table
    assert "90 s per run; peak memory host 2.0 GiB" in table
    assert "7: image 0: empty box;" in table
    assert "and 2 more in the records" in table


def test_backbones_of_one_name_are_told_apart(tmp_path: Path, make_result: Any) -> None:
    runs = [make_result({"top1": 1.0}, digest=digit * 64) for digit in "ab"]
    summary = section(report_on(tmp_path, *runs), "## Summary")
    assert "demo (aaaaaaaa)" in summary
    assert "demo (bbbbbbbb)" in summary


def test_text_from_a_record_cannot_break_the_report(tmp_path: Path, make_result: Any) -> None:
    evil = "a|b<script>`x`\n\n# head **bold** [l](u)"
    text = report_on(tmp_path, make_result({"top1": 1.0}, backbone=evil, data="| x\n## y", skipped=("<b>",)))
    assert re.search(r"(?<!\\)<", text) is None
    assert "\n# head" not in text
    assert "\n## y" not in text
    assert r"a\|b\<script\>\`x\` \# head \*\*bold\*\* \[l\](u)" in text
    table = section(text, "### T1")
    counts = {len(re.split(r"(?<!\\)\|", line)) for line in table.splitlines() if line.startswith("|")}
    assert len(counts) == 1


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("learning_rate 0.1", "learning_rate 0.1"),
        ("_x_", r"\_x\_"),
        ("a - b + 1. c", r"a \- b \+ 1\. c"),
        ("-1.5 → 2", "-1.5 → 2"),
        ("tab\tand\u200bnothing", "tab and nothing"),
        ("\\|", r"\\\|"),
    ],
)
def test_escape(text: str, escaped: str) -> None:
    assert escape(text) == escaped


def test_the_report_does_not_depend_on_file_names_or_folder_order(tmp_path: Path, make_result: Any) -> None:
    runs = [make_result({"top1": float(seed)}, seed=seed, digest="d") for seed in range(3)]
    runs += [make_result({"top1": 1.0}, protocol="imagenet-knn/smoke@1", backbone="random")]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    assert report_on(tmp_path / "one", *runs) == report_on(tmp_path / "two", *reversed(runs))
    both = build_report([tmp_path / "one", tmp_path / "two"])
    copies = section(both, "## Records left out")
    assert copies.count("a copy of one/") == len(runs)
    assert both.replace(f"## Records left out{copies.removeprefix('## Records left out')}\n", "") == report_on(
        tmp_path / "two", *reversed(runs)
    )


def test_an_unknown_format_lists_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="--format pdf: expected one of markdown, latex, csv, html"):
        build_report([tmp_path], format="pdf")


def test_reports_load_no_torch() -> None:
    code = "import sys, reports, reports.report; assert 'torch' not in sys.modules; assert 'pandas' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
