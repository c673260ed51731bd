"""Online kNN and the similarities in the log: by hand, the same on several processes, and without a trace."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from processes import in_processes
from tiny_pretraining import assert_same_state, draw_pictures, load, make_run, make_tiny_encoder, run_tiny
from torch import nn

from mocobench.runtime.distributed import world_size
from mocobench.runtime.errors import UserError
from mocobench.runtime.neighbors import Labelled, knn_accuracies
from pretrain.checkpoint import LAST
from pretrain.monitor import make_monitor
from pretrain.train import pretrain

KNN = ("knn_top1", "knn_embedding_top1")


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """Red and green pictures of several shades and shapes; one of the six in val is in the wrong folder."""
    data = tmp_path / "colours"
    for split, count in (("train", 4), ("val", 3)):
        for label, name in enumerate(("green", "red")):
            (data / split / name).mkdir(parents=True)
            for number in range(count):
                is_swapped = (split, name, number) == ("val", "red", 0)
                pixels = np.zeros((12 + number, 15, 3), dtype=np.uint8)
                pixels[..., 0 if label != is_swapped else 1] = 150 + 20 * number
                Image.fromarray(pixels).save(data / split / name / f"{number}.png")
    return data


class ColourEncoder(nn.Module):
    """Features are the mean red, green and blue; the embedding has their sum twice, so it is of one direction."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(3, 2, bias=False)
        nn.init.constant_(self.fc.weight, 1.0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        embedding: torch.Tensor = self.fc(self.pool(images))
        return embedding


def test_accuracy_by_hand(colours: Path, tmp_path: Path) -> None:
    encoder = ColourEncoder().train()
    found, left_out = make_monitor(colours).measure(make_run(colours, tmp_path / "run", num_workers=1), encoder)
    # Pooled colours tell all but the one that lies in the wrong folder. All 8 of the bank vote, and by embeddings, all
    # of one or the opposite direction, no class can be right for both.
    assert found["knn_top1"] == pytest.approx(100 * 5 / 6)
    assert found["knn_embedding_top1"] < 100
    assert left_out == []
    assert encoder.training


def test_a_run_with_the_monitor_ends_as_one_without(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pretrain.methods.make_encoder", make_tiny_encoder)
    pictures = draw_pictures(tmp_path / "pictures")
    without = pretrain(make_run(pictures, tmp_path / "without", differing={"epochs": 3}))
    watched = pretrain(make_run(pictures, tmp_path / "watched", differing={"epochs": 3}, knn_every=2, knn_data=colours))
    assert_same_state(load(without), load(watched))
    lines = [json.loads(line) for line in (tmp_path / "watched" / "metrics.jsonl").read_text().splitlines()]
    assert [set(KNN) <= line.keys() for line in lines] == [False, True, True]  # every second epoch, and the last
    assert all(0 <= line[name] <= 100 for line in lines[1:] for name in KNN)


def test_two_processes_find_what_one_does(colours: Path, tmp_path: Path) -> None:
    """Seven and six images on two processes: neither divides."""
    (colours / "train" / "red" / "0.png").unlink()
    pictures = draw_pictures(tmp_path / "pictures")
    settings = {"knn_every": 2, "knn_data": colours}
    lines = []
    for count in (1, 2):
        out = tmp_path / str(count)
        assert [code for code, _ in in_processes(count, run_tiny, pictures, out, **settings)] == [0] * count
        lines.append(json.loads((out / "metrics.jsonl").read_text().splitlines()[-1]))
    assert [lines[0][name] for name in KNN] == [lines[1][name] for name in KNN]
    for name in ("positive_similarity", "negative_similarity"):
        assert lines[0][name] == pytest.approx(lines[1][name], abs=1e-5)
        assert -1 <= lines[0][name] <= 1


def test_folders_that_do_not_fit_are_refused_before_training(colours: Path, tmp_path: Path) -> None:
    pictures = draw_pictures(tmp_path / "pictures")
    with pytest.raises(UserError, match=r"expected val/ with one folder .* in \S+, found none; name a labelled"):
        pretrain(make_run(pictures, tmp_path / "run", knn_every=1))
    (colours / "val" / "red").rename(colours / "val" / "blue")
    with pytest.raises(UserError, match=r"the same in train/ and val/, found green, red \(2\) and blue, green \(2\)"):
        pretrain(make_run(pictures, tmp_path / "run", knn_every=1, knn_data=colours))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_an_unreadable_image_is_named(colours: Path, tmp_path: Path) -> None:
    (colours / "val" / "red" / "1.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"red/1\.png: expected an image .*, or skip such images with --on-bad-image"):
        make_monitor(colours).measure(make_run(colours, tmp_path / "run"), ColourEncoder())


def measure_skipping(colours: Path) -> tuple[dict[str, float], list[str]]:
    assert world_size() <= 4
    run = make_run(colours, colours, on_bad_image="skip", num_workers=1)
    return make_monitor(colours).measure(run, ColourEncoder())


@pytest.mark.parametrize("count", [1, 2, 4])
def test_skipped_images_are_neither_in_the_bank_nor_asked_for(colours: Path, count: int) -> None:
    """Without a query that is told and one that is not, four are left, and all are told; four do not divide seven."""
    bad = ["kNN train/green/1.png", "kNN val/green/2.png", "kNN val/red/0.png"]
    for name in bad:
        (colours / name.removeprefix("kNN ")).write_bytes(b"no image")
    answers = in_processes(count, measure_skipping, colours)
    assert [code for code, _ in answers] == [0] * count
    found, left_out = zip(*(answer for _, answer in answers), strict=True)
    assert sorted(name for names in left_out for name in names) == bad
    assert all(one == found[0] for one in found)
    for name in bad:
        (colours / name.removeprefix("kNN ")).unlink()
    assert in_processes(1, measure_skipping, colours) == [(0, (found[0], []))]
    assert found[0]["knn_top1"] == 100


def test_a_split_of_which_nothing_can_be_read_stops_a_run_that_skips(colours: Path) -> None:
    for path in (colours / "val").rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(
        UserError, match=r"^--on-bad-image skip: expected images .* in \S+/val, found 6 that cannot; look"
    ):
        measure_skipping(colours)


def test_a_run_that_skips_goes_on_and_records_what_it_left_out(colours: Path, tmp_path: Path) -> None:
    (colours / "val" / "red" / "1.png").write_bytes(b"no image")
    out = tmp_path / "run"
    settings = {"knn_every": 1, "knn_data": colours, "on_bad_image": "skip"}
    assert in_processes(2, run_tiny, draw_pictures(tmp_path / "pictures"), out, **settings) == [(0, LAST)] * 2
    record = json.loads((out / "run.json").read_text())
    assert record["bad_images"] == {"count": 1, "files": ["kNN val/red/1.png"]}


def test_features_stay_in_half_precision_on_the_cpu(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    banks = []

    def keep(bank: Labelled, *others: Any, **settings: Any) -> dict[int, float]:
        banks.append(bank[0])
        return knn_accuracies(bank, *others, **settings)

    monkeypatch.setattr("pretrain.monitor.knn_accuracies", keep)
    make_monitor(colours).measure(make_run(colours, colours), ColourEncoder())
    assert [(bank.dtype, bank.device.type, tuple(bank.shape)) for bank in banks] == [
        (torch.float16, "cpu", (8, size)) for size in (3, 2)
    ]
