"""Pictures: which are drawn, from what, and that they are the same every time; and the ranks behind one of them."""

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image
from scipy import stats

from mocobench.cli import main
from pretrain.monitor import NEIGHBORS, TEMPERATURE
from reports.collect import collect_results
from reports.formats.blocks import Picture
from reports.pictures.draw import draw_pictures
from reports.pictures.figures import look_of
from reports.pictures.material import Material
from reports.pictures.training import training_curves
from reports.pretraining_logs import PretrainingLog
from reports.published import load_published
from reports.ranks import rank_correlation
from reports.report import build_report
from reports.trials import group_results

LOG = '{"epoch": 1, "loss": 4.0, "knn_top1": 20.0}\n{"epoch": 2, "loss": NaN, "note": "x"}\n'


def drawn(results: list[Any], logs: Any = ()) -> dict[str, Picture]:
    return {picture.name: picture for picture in draw_pictures(group_results(results), load_published(), logs)}


def backbones(make_result: Any, values: tuple[tuple[float, float], ...]) -> list[Any]:
    results = []
    for number, (top1, ap) in enumerate(values):
        named = {"backbone": f"b{number}", "digest": str(number)}
        results.append(make_result({"top1": top1}, **named))
        results.append(make_result({"ap": ap}, protocol="voc-detection/smoke@1", data="voc", **named))
    return results


def test_ranks_by_hand() -> None:
    assert rank_correlation([1.0, 2.0, 3.0], [10.0, 30.0, 40.0]) == pytest.approx(1.0)
    assert rank_correlation([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == pytest.approx(-1.0)
    assert rank_correlation([1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 4.0, 3.0]) == pytest.approx(0.6)  # 1 - 6 * 4 / (4 * 15)
    assert rank_correlation([1.0, 1.0, 2.0], [1.0, 2.0, 3.0]) == pytest.approx(3**0.5 / 2)  # ranks 1.5, 1.5, 3
    assert rank_correlation([1.0, 2.0], [5.0, 5.0]) is None


def test_scipy_ranks_the_same() -> None:
    generator = np.random.default_rng(0)
    xs, ys = (generator.integers(0, 8, 12).astype(float).tolist() for _ in range(2))  # with ties
    assert rank_correlation(xs, ys) == pytest.approx(stats.spearmanr(xs, ys).statistic)


def test_linear_against_detection_says_the_rank_correlation(make_result: Any) -> None:
    found = drawn(backbones(make_result, ((60.0, 56.0), (67.0, 57.0), (76.0, 53.0))))["linear-against-detection"]
    assert "rank correlation −0.50, n = 3" in found.svg.decode()
    two = drawn(backbones(make_result, ((60.0, 56.0), (67.0, 57.0))))["linear-against-detection"]
    assert "n = 2: too few to rank" in two.svg.decode()
    assert "linear-against-detection" not in drawn(backbones(make_result, ((60.0, 56.0),)))


def test_a_detection_task_of_ones_own_is_drawn_under_its_name(make_result: Any) -> None:
    results = backbones(make_result, ((60.0, 56.0), (67.0, 57.0)))
    results = [replace(one, task="own-detection") if one.task == "voc-detection" else one for one in results]
    assert "own-detection AP" in drawn(results)["linear-against-detection"].svg.decode()


def test_smoke_and_the_papers_protocol_do_not_share_a_panel(make_result: Any) -> None:
    results = [
        make_result(metrics, protocol=protocol, backbone=name, digest=name)
        for name in "ab"
        for metrics, protocol in (({"top1": 1.0}, "imagenet-linear/moco@1"), ({"ap": 1.0}, "voc-detection/smoke@1"))
    ]
    assert "linear-against-detection" not in drawn(results)


def test_random_is_drawn_only_where_it_presses_nothing_into_a_corner(make_result: Any) -> None:
    random = [
        make_result({"top1": 1.0}, backbone="random"),
        make_result({"ap": 1.0}, protocol="voc-detection/smoke@1", data="voc", backbone="random"),
    ]
    two, three = ((60.0, 56.0), (67.0, 57.0)), ((60.0, 56.0), (67.0, 57.0), (76.0, 53.0))
    for values, n, is_drawn in ((two, 3, True), (three, 3, False)):
        svg = drawn(random + backbones(make_result, values))["linear-against-detection"].svg.decode()
        assert f"n = {n}" in svg
        assert (">random<" in svg) is is_drawn


def test_every_backbone_has_a_look_of_its_own() -> None:
    looks = [look_of(number) for number in range(49)]
    assert len({(look["color"], look["marker"]) for look in looks}) == 49


def test_a_caption_says_what_is_not_shown(make_result: Any) -> None:
    results = backbones(make_result, tuple((50.0 + n, 40.0 + n) for n in range(13)))
    caption = "the first 12 of 13 lines a panel"
    assert all(caption in picture.caption for picture in drawn(results).values())
    assert not any("the first" in picture.caption for picture in drawn(results[:-2]).values())


def test_trials_are_drawn_where_there_are_several(make_result: Any) -> None:
    one = make_result({"top1": 1.0}, digest="d")
    assert "trials" not in drawn([one])
    assert "trials" in drawn([one, make_result({"top1": 2.0}, digest="d", seed=1)])


def test_pretraining_logs_give_their_curves(tmp_path: Path, make_result: Any) -> None:
    (tmp_path / "run-a").mkdir()
    (tmp_path / "run-a" / "metrics.jsonl").write_text(LOG)
    run = make_result({"top1": 1.0})
    (tmp_path / "a.json").write_text(run.to_json())
    (log,) = collect_results([tmp_path, tmp_path / "run-a"]).logs
    assert log.name == "run-a"
    assert log.epochs == ({"epoch": 1.0, "loss": 4.0, "knn_top1": 20.0}, {"epoch": 2.0})
    svg = drawn([run], [log])["training-curves"].svg.decode()
    assert "online kNN top-1, %" in svg
    assert "run-a" in svg


def test_the_online_knn_is_drawn_by_pooled_features_and_by_embeddings(make_result: Any) -> None:
    """Where a run has them, a point each, joined over the epochs between; an older run has none of embeddings."""
    at = (1.0, 2.0, 3.0, 5.0, 10.0)
    both = tuple(
        {"epoch": float(epoch), "loss": 5.0} | ({"knn_top1": 30.0 + epoch, "knn_embedding_top1": 20.0 + epoch})
        if epoch in at
        else {"epoch": float(epoch), "loss": 5.0}
        for epoch in range(1, 11)
    )
    logs = [PretrainingLog("run-a", both), PretrainingLog("old", ({"epoch": 1.0, "knn_top1": 9.0},))]
    panels = curves_of(logs)
    (knn,) = (panel for title, panel in panels.items() if title.startswith("online kNN"))
    pooled, embedded, old, nothing = (line.get_xydata().tolist() for line in knn.lines)
    assert pooled == [[epoch, 30.0 + epoch] for epoch in at]
    assert embedded == [[epoch, 20.0 + epoch] for epoch in at]
    assert (old, nothing) == ([[1.0, 9.0]], [])
    assert len({line.get_marker() for line in knn.lines[:2]}) == 2
    assert [text.get_text() for text in knn.get_legend().get_texts()] == ["pooled features", "embeddings"]
    assert knn.get_title() == f"online kNN top-1, % (k ≤ {NEIGHBORS}, T {TEMPERATURE})"

    (knn,) = (panel for title, panel in curves_of(logs[1:]).items() if title.startswith("online kNN"))
    assert [text.get_text() for text in knn.get_legend().get_texts()] == ["pooled features"]


def curves_of(logs: list[PretrainingLog]) -> dict[str, Any]:
    """The panels of the training curves by their titles."""
    drawing = training_curves(Material((), (), logs, {}))
    assert drawing is not None
    figure, _ = drawing
    return {axis.get_title(): axis for axis in figure.axes}


@pytest.mark.parametrize("line", ["{", "[1]", '{"loss": 1.0}', '{"epoch": 3, "loss": 1' + 400 * "0" + "}"])
def test_a_broken_log_is_listed(tmp_path: Path, make_result: Any, line: str) -> None:
    (tmp_path / "a.json").write_text(make_result({"top1": 1.0}).to_json())
    (tmp_path / "metrics.jsonl").write_text(LOG + line)
    (left_out,) = collect_results([tmp_path]).left_out
    assert left_out.file == f"{tmp_path.name}/metrics.jsonl"
    assert re.match("line 3: expected an epoch's values, found", left_out.reason)


def test_the_card_of_a_pretraining_run(tmp_path: Path, make_result: Any) -> None:
    (tmp_path / "a.json").write_text(make_result({"top1": 1.0}).to_json())
    (tmp_path / "run-b").mkdir()
    (tmp_path / "run-b" / "metrics.jsonl").write_text(LOG)
    views = {"order": ["crop", "flip"], "crop_ratio": [0.75, 4 / 3], "blur_probability": 0.0, "blur_sigma": [0.1, 2.0]}
    recipe = {"name": "demo", "augmentation": views, "epochs": 8, "cosine": True, "decay_epochs": [120, 160]}
    run = {
        "recipe": recipe,
        "differs": ["epochs: 20 -> 8", "dim: 128 -> 64"],
        "seed": 3,
        "precision": "fp32",
        "wall_seconds": 600,
    }
    (tmp_path / "run-b" / "run.json").write_text(json.dumps(run))
    text = " ".join(build_report([tmp_path]).split())
    assert "**run-b**: recipe demo (changed: epochs 20 → 8, dim 128 → 64); augmentation order crop,flip" in text
    assert (
        "augmentation crop_ratio 0.75,1.33333; augmentation blur_probability 0.0; epochs 8; cosine True; data" in text
    )
    (tmp_path / "run-b" / "run.json").write_text("[]")
    assert "expected the record of a pretraining run, found" in " ".join(build_report([tmp_path]).split())


@pytest.mark.parametrize(
    "damage",
    [
        {"wall_seconds": "long"},
        {"differs": [1]},
        {"differs": 3},
        {"code": None},
        {"data": []},
        {"environment": 1},
        {"sessions": [1]},
    ],
)
def test_a_damaged_card_is_listed(tmp_path: Path, make_result: Any, damage: dict[str, Any]) -> None:
    (tmp_path / "a.json").write_text(make_result({"top1": 1.0}).to_json())
    (tmp_path / "metrics.jsonl").write_text(LOG)
    (tmp_path / "run.json").write_text(json.dumps({"recipe": {"augmentation": {}}} | damage))
    text = " ".join(build_report([tmp_path]).split())
    assert f"{next(iter(damage))}: expected what pretrain writes, found" in text


def test_pictures_are_the_same_every_time_and_white(make_result: Any) -> None:
    results = backbones(make_result, ((60.0, 56.0), (67.0, 57.0)))
    one, two = drawn(results), drawn(results)
    assert one == two
    for picture in one.values():
        assert b"<date>" not in picture.svg
        assert Image.open(io.BytesIO(picture.png)).convert("RGB").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.filterwarnings("error")
def test_any_name_can_be_drawn(make_result: Any) -> None:
    names = ("_a$x$", "中文" * 40, "<b>&\n")
    results = [make_result({"top1": float(i)}, backbone=name, digest=name) for i, name in enumerate(names)]
    svg = drawn(results)["cost-against-accuracy"].svg.decode()
    assert "_a$x$" in svg
    assert "&lt;b&gt;&amp;" in svg


def test_the_command_writes_files_that_the_report_names(tmp_path: Path, make_result: Any) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "a.json").write_text(make_result({"top1": 1.0}).to_json())
    out = tmp_path / "docs" / "report.md"
    command = [
        "report",
        str(tmp_path / "results"),
        "--out",
        str(out),
        "--pictures",
        str(tmp_path / "docs" / "pictures"),
    ]
    assert main(command) == 0
    assert "](pictures/cost-against-accuracy.svg)" in out.read_text()
    for ending in ("svg", "png"):
        assert (out.parent / "pictures" / f"cost-against-accuracy.{ending}").stat().st_size > 1000
