"""The published numbers: their schema, and values read off the papers."""

import re
from pathlib import Path

import pytest

from benchmarks.result import RecordError
from pretrain.recipes import RECIPES
from reports.catalogue import Wanted, list_published
from reports.citations import bibtex, sources_of
from reports.disagreements import find_disagreements
from reports.metrics import TITLES
from reports.published import CHECKED, SHOW, Published, load_published, read_rows

# Our own; one of which the paper prints costs alone; and two on CIFAR-10, which no task here evaluates.
WITHOUT_ACCURACY = {"demo", "end-to-end-200ep", "moco-v2-cifar10", "moco-v2-cifar10-symmetric"}
OTHER_METRICS = {"top1_k20", "top1_k200", "gpu_memory_gb", "hours"}

TABLE = """
short = "Paper"
title = "A Paper"
[[tables]]
table = "Table 1"
protocol = "imagenet-linear/moco@1"
metrics = ["top1"]
checked = "original"
rows = [{ method = "MoCo", %s }]
"""


def find(protocol: str, method: str, short: str, table: str = "", **pretraining: object) -> list[Published]:
    return [
        row
        for row in load_published()
        if (row.protocol, row.method, row.source.short) == (protocol, method, short)
        and table in ("", row.table)
        and all(getattr(row.pretraining, name) == value for name, value in pretraining.items())
    ]


def test_every_row_is_whole() -> None:
    rows = load_published()
    assert len(rows) > 150
    for row in rows:
        assert row.metrics
        assert row.metrics.keys() == row.checked.keys()
        assert row.metrics.keys() <= TITLES.keys() | OTHER_METRICS
        assert all(0 < value <= 100 for value in row.metrics.values()), row
        assert set(row.checked.values()) <= set(CHECKED)
        assert row.show in SHOW
        assert row.source.title
        assert row.table
        assert row.spread is None or (row.spread.keys() == row.metrics.keys() and row.trials)


def test_no_row_stands_twice() -> None:
    rows = load_published()
    assert len({repr(row) for row in rows}) == len(rows)


def test_moco_v2_table_1() -> None:
    (row,) = find("imagenet-linear/moco@1", "MoCo v2", "MoCo v2", "Table 1", epochs=800)
    assert (row.metrics, row.checked, row.origin) == ({"top1": 71.1}, {"top1": "original"}, "original")
    (row,) = [row for row in load_published() if row.case == "(a)" and row.task == "voc-detection"]
    assert row.metrics == {"ap50": 82.0, "ap": 56.4, "ap75": 62.6}
    assert row.checked == {"ap50": "unchecked", "ap": "transcription", "ap75": "unchecked"}
    assert (row.trials, row.spread) == (5, {"ap50": 0.2, "ap": 0.2, "ap75": 0.4})


def test_both_learning_rate_rules_of_simclr() -> None:
    rows = find("imagenet-linear/simclr@1", "SimCLR", "SimCLR", "Table B.1", epochs=200, batch=256)
    assert {row.pretraining.lr_rule: row.metrics["top1"] for row in rows} == {"linear": 61.9, "sqrt": 64.3}
    assert len(find("imagenet-linear/simclr@1", "SimCLR", "SimCLR", "Table B.1")) == 48


def test_both_sides_of_a_disagreement_are_kept() -> None:
    (authors,) = find("voc-detection/moco-c4-24k@1", "MoCo v2", "MoCo v2", epochs=800)
    (others,) = find("voc-detection/moco-c4-24k@1", "MoCo v2", "PixPro", epochs=800)
    assert (authors.metrics["ap"], others.metrics["ap"]) == (57.4, 57.6)
    assert (authors.origin, others.origin) == ("original", "re-run by PixPro")
    (authors,) = find("coco-detection/moco-c4-2x@1", "MoCo v1", "MoCo v1")
    (others,) = find("coco-detection/moco-c4-2x@1", "MoCo v1", "PyContrast")
    assert (authors.metrics["mask_ap"], others.metrics["mask_ap"]) == (35.4, 35.6)


def test_disagreements_are_found_where_two_sources_say_the_same_work() -> None:
    found = {
        (one.first.protocol, one.first.method, one.first.source.short, one.second.source.short, *one.metrics)
        for one in find_disagreements(load_published())
    }
    assert ("voc-detection/moco-c4-24k@1", "MoCo v2", "MoCo v2", "PixPro", "ap50", "ap", "ap75") in found
    assert ("coco-detection/moco-c4-2x@1", "MoCo v1", "MoCo v1", "PyContrast", "mask_ap") in found
    # Another width, rate rule, number of epochs or switch is other work.
    assert {method for _, method, *_ in found} == {"MoCo v1", "MoCo v2"}


def test_recipes_name_one_pretraining_each() -> None:
    for recipe in {row.recipe for row in load_published()} - {"", "random"}:
        rows = [row for row in load_published() if row.recipe == recipe]
        assert len({(row.method, row.pretraining.epochs) for row in rows}) == 1, recipe


@pytest.mark.parametrize("name", sorted(RECIPES.keys() - WITHOUT_ACCURACY))
def test_each_recipe_that_names_a_published_number_has_its_row(name: str) -> None:
    recipe = RECIPES[name]
    rows = [row for row in load_published() if row.recipe == name]
    twins = [row for row in rows if row.show != "comparison" and row.task == "imagenet-linear"]
    assert twins
    named = re.search(r"linear top-1 ([\d.]+)", recipe.source)
    assert named is None or float(named[1]) in [row.metrics["top1"] for row in twins]
    own = {"epochs": recipe.epochs, "batch": recipe.batch_size, "mlp": recipe.mlp, "cos": recipe.cosine}
    own |= {"aug_plus": recipe.augmentation.blur_probability > 0, "temperature": recipe.temperature}
    own |= {"lr_rule": recipe.rate_scaling}
    for row in rows:
        said = {key: value for key in own if (value := getattr(row.pretraining, key)) is not None}
        assert said == {key: own[key] for key in said}, row
        assert {"epochs", "batch"} <= said.keys(), row


def test_bibtex() -> None:
    rows = [row for row in load_published() if row.source.short in ("MoCo v2", "PixPro")]
    text = bibtex(sources_of(rows))
    assert text.startswith("@misc{moco-v2,\n  title = {{Improved Baselines with Momentum Contrastive Learning}},\n")
    assert "author = {Chen and Fan and Girshick and He},\n  year = {2020},\n  eprint = {2003.04297}," in text
    assert "@misc{pixpro," in text
    assert "author = {Xie and others}" in text
    assert text.count("{") == text.count("}")


def test_the_catalogue_filters() -> None:
    text = list_published(Wanted(protocol="VOC-detection", method="simclr+", source="SimSiam"), format="csv")
    rows = [line.split(",") for line in text.splitlines() if line.startswith("row,")]
    assert [row[4] for row in rows] == ["75.9 (5)", "81.8 (5)"]
    assert all("re-run by SimSiam" in ",".join(row) for row in rows)
    only = list_published(Wanted(checked="unchecked", protocol="coco-detection/fpn-2fc-1x@1"), format="csv")
    assert only.count("row,published") == 3
    assert list_published(Wanted(source="vissl"), format="bibtex").count("@misc") == 1


def test_the_catalogue_shows_disagreements() -> None:
    text = " ".join(list_published(Wanted(only_disagreements=True)).split())
    assert "mask AP 35.4 in MoCo v1, COCO, C4 2x but 35.6 in PyContrast, README (printed by PyContrast)" in text
    assert "SimSiam" not in text


@pytest.mark.parametrize(
    ("wanted", "format", "message"),
    [
        (Wanted(method="Moco v9"), "markdown", "expected published rows, found none that fit all flags; methods: "),
        (Wanted(checked="maybe"), "markdown", "--checked maybe: expected one of original, transcription, unchecked"),
        (Wanted(), "pdf", "--format pdf: expected one of markdown, latex, csv, html, bibtex"),
    ],
)
def test_the_catalogue_refuses(wanted: Wanted, format: str, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        list_published(wanted, format=format)


def test_the_order_of_simsiams_columns_is_not_ours() -> None:
    """Its Table 5 prints AP50/AP/AP75; MoCo v1 prints AP/AP50/AP75 for COCO."""
    (row,) = find("coco-detection/simsiam-c4-1x@1", "BYOL", "SimSiam")
    assert (row.metrics["box_ap50"], row.metrics["box_ap"], row.metrics["mask_ap"]) == (57.8, 37.9, 33.2)


def test_ap_lies_between_zero_and_its_value_at_one_half() -> None:
    """AP averages over IoU thresholds from 0.5 up, so it is below AP50: a law that a swapped column breaks."""
    for row in load_published():
        for prefix in ("", "box_", "mask_"):
            ap, ap50, ap75 = (row.metrics.get(prefix + name) for name in ("ap", "ap50", "ap75"))
            if ap is not None and ap50 is not None and ap75 is not None:
                assert ap < ap50
                assert ap75 < ap50


def test_printed_trials_give_mean_and_spread() -> None:
    (row,) = [row for row in load_published() if row.samples and row.method == "MoCo v1"]
    assert row.metrics["top1"] == pytest.approx((60.6 + 60.6 + 60.7 + 60.9 + 61.1) / 5)
    squares = 0.18**2 + 0.18**2 + 0.08**2 + 0.12**2 + 0.32**2  # distances to 60.78
    assert row.spread is not None
    assert row.spread["top1"] == pytest.approx((squares / 4) ** 0.5)
    assert row.trials == 5


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("values = [1.0, 2.0]", "Table 1, row 1: .*longer"),
        ('values = [1.0], checked = "maybe"', "row 1: checked: expected one of .* found 'maybe'"),
        ('values = [1.0], origin = "heard"', "row 1: origin: expected one of .* found 'heard'"),
        ('values = [1.0], show = "often"', "row 1: show: expected one of .* found 'often'"),
        ('values = [1.0], protocol = "moco"', "row 1: protocol: expected TASK/NAME@VERSION, found 'moco'"),
        ("values = [1.0], epoch = 200", "row 1: .*unexpected keyword argument 'epoch'"),
        ("values = [1.0], samples = [1.0, 2.0]", "row 1: samples: expected one metric, without values"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: str, message: str) -> None:
    path = tmp_path / "paper.toml"
    path.write_text(TABLE % row)
    with pytest.raises(ValueError, match=message):
        read_rows(path)
