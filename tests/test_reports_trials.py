"""Trials: what counts as the same row, its mean and spread, and its difference to random."""

from typing import Any

import pytest
from msgspec.structs import replace

from benchmarks.result import SplitIdentity
from reports.cells import best_marks
from reports.labels import backbone_labels
from reports.notes import table_notes
from reports.tables import measured_table
from reports.trials import Measured, gains_over_random, group_results


def test_mean_and_sample_standard_deviation_by_hand(make_result: Any) -> None:
    results = [make_result({"top1": value}, seed=seed, digest="d") for seed, value in enumerate((1.0, 2.0, 6.0))]
    (table,) = group_results(results)
    (row,) = table.rows
    assert row.seeds == (0, 1, 2)
    assert row.mean("top1") == 3.0
    assert row.spread("top1") == pytest.approx(7.0**0.5)  # (4 + 1 + 9) / 2
    assert row.mean("top5") is None


def test_a_single_trial_has_no_spread(make_result: Any) -> None:
    (table,) = group_results([make_result({"top1": 5.0})])
    assert (table.rows[0].mean("top1"), table.rows[0].spread("top1")) == (5.0, None)


def test_random_backbones_of_several_seeds_are_one_row_and_others_are_not(make_result: Any) -> None:
    draws = [make_result({"top1": 1.0}, backbone="random", seed=seed) for seed in (0, 1)]
    trained = [make_result({"top1": 1.0}, digest=digest) for digest in ("a", "b")]
    (table,) = group_results([*draws, *trained])
    assert [len(row.trials) for row in table.rows] == [1, 1, 2]
    assert table.rows[-1].is_random


@pytest.mark.parametrize("change", [{"settings": {"learning_rate": 1.0}}, {"base": "x/y@1"}])
def test_another_setting_is_another_table(make_result: Any, change: dict[str, Any]) -> None:
    assert len(group_results([make_result({"top1": 1.0}), make_result({"top1": 1.0}, **change)])) == 2


def test_other_lists_are_another_table_and_another_name_is_not(make_result: Any) -> None:
    one = make_result({"top1": 12.0})
    renamed = make_result({"top1": 10.0}, backbone="random", data="photos-on-another-disk")
    (table,) = group_results([one, renamed])
    assert [gain.points for gain in gains_over_random(table, table.rows[0], ("top1",))] == [2.0]
    (note,) = (note.text for note in table_notes(table, (), backbone_labels(table.trials)) if note.label == "Data")
    assert note.startswith("photos, photos-on-another-disk, 10 classes; train 60 images")
    splits = {**one.data.splits, "val": SplitIdentity(20, "ef" * 32)}
    assert len(group_results([one, replace(renamed, data=replace(renamed.data, splits=splits))])) == 2


def test_another_engine_is_another_row(make_result: Any) -> None:
    results = [make_result({"top1": 1.0}, digest="d"), make_result({"top1": 1.0}, digest="d", engine={"name": "other"})]
    (table,) = group_results(results)
    assert len(table.rows) == 2


def test_another_cut_of_the_batch_is_another_row_and_the_table_says_which(make_result: Any) -> None:
    """Two seeds cut alike, over processes or passes, are one row; a third is no trial of it, nor its re-run."""

    def run(value: float, over: str, **changes: Any) -> Any:
        result = make_result({"ap": value}, protocol="voc-detection/smoke@1", digest="d", **changes)
        return replace(result, details={"batch_norm": f"over {over} of 16"})

    cut = [run(50.0, "parts of 2 images"), run(52.0, "parts of 2 images", seed=1)]
    draw = run(40.0, "parts of 2 images", backbone="random")
    (alike,) = group_results([*cut, draw])
    assert [row.seeds for row in alike.rows] == [(0, 1), (0,)]
    labels = backbone_labels(alike.trials)
    assert "BatchNorm" not in str(measured_table(alike, (), labels))
    assert "has no random row of the same network, seeds, engine and precision" in str(table_notes(alike, (), labels))

    (table,) = group_results([*cut, run(60.0, "parts of 4 images"), draw])
    parted, other, random = table.rows
    assert [row.mean("ap") for row in table.rows] == [51.0, 60.0, 40.0]
    assert [row.rerun_seeds for row in table.rows] == [(), (), ()]
    assert table.random_row(other) is None
    assert table.random_row(Measured(parted.trials[:1])) is random
    sources = [row.cells[-2] for row in measured_table(table, (), labels).rows]
    two, four = (f"torch 2.6, fp32, BatchNorm over parts of {images} images of 16" for images in (2, 4))
    assert sources == [two, four, two]
    notes = [note.text for note in table_notes(table, (), labels)]
    assert "demo has no random row of the same network, seeds, engine, precision and BatchNorm statistics" in notes
    one = "each row is of one engine, precision and BatchNorm statistics, but the table has several"
    assert f"{one}: {two}; {four}" in notes


def test_of_two_runs_of_a_seed_the_newest_counts(make_result: Any) -> None:
    old = make_result({"top1": 1.0}, created="2026-01-01T00:00:00+00:00")
    new = make_result({"top1": 9.0}, created="2026-01-02T00:00:00+00:00")
    (row,) = group_results([new, old])[0].rows
    assert (row.mean("top1"), row.rerun_seeds) == (9.0, (0,))


def test_gain_over_random_needs_the_same_seeds(make_result: Any) -> None:
    trained = [make_result({"top1": 12.0 + seed, "top5": 1.0}, seed=seed, digest="d") for seed in (0, 1)]
    draws = [make_result({"top1": 10.0, "top5": 2.0}, seed=seed, backbone="random") for seed in (0, 1)]
    (table,) = group_results([*trained, *draws])
    gains = gains_over_random(table, table.rows[0], ("top1", "top5"))
    assert [(gain.points, gain.is_better) for gain in gains] == [(2.5, True), (-1.0, False)]
    (table,) = group_results([*trained, draws[0]])
    assert gains_over_random(table, table.rows[0], ("top1",)) == ()


@pytest.mark.parametrize(("higher_is_better", "marks"), [(True, ["★", "", "☆"]), (False, ["", "☆", "★"])])
def test_two_engines_of_a_backbone_are_no_rivals(make_result: Any, higher_is_better: bool, marks: list[str]) -> None:
    engines = [make_result({"ap": 50.0}, digest="a"), make_result({"ap": 49.0}, digest="a", engine={"name": "x"})]
    (alone,) = group_results(engines)
    assert best_marks(alone.rows, "ap", higher_is_better=higher_is_better) == ["", ""]
    (table,) = group_results([*engines, make_result({"ap": 40.0}, digest="b", backbone="other")])
    assert [row.mean("ap") for row in table.rows] == [50.0, 49.0, 40.0]
    assert best_marks(table.rows, "ap", higher_is_better=higher_is_better) == marks


def test_a_draw_with_random_is_not_better(make_result: Any) -> None:
    (table,) = group_results([make_result({"top1": 10.001}), make_result({"top1": 10.0}, backbone="random")])
    (gain,) = gains_over_random(table, table.rows[0], ("top1",))
    assert (gain.points, gain.is_better) == (0.0, False)
