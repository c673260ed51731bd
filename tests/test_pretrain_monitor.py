"""Online kNN and the similarities in the log: by hand, the same on several processes, and without a trace."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from processes import in_processes
from tiny_pretraining import assert_same_state, draw_pictures, load, make_run, make_tiny_encoder, run_tiny
from torch import nn

from mocobench.runtime.errors import UserError
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
    found = make_monitor(colours).measure(make_run(colours, tmp_path / "run", num_workers=1), encoder)
    # Pooled colours tell all but the one that lies in the wrong folder. All 8 of the bank vote, and by embeddings, all
    # of one or the opposite direction, no class can be right for both.
    assert found["knn_top1"] == pytest.approx(100 * 5 / 6)
    assert found["knn_embedding_top1"] < 100
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
    with pytest.raises(UserError, match="expected val/ with one folder of images per class, found none"):
        pretrain(make_run(pictures, tmp_path / "run", knn_every=1))
    (colours / "val" / "red").rename(colours / "val" / "blue")
    with pytest.raises(UserError, match=r"the same in train/ and val/, found green, red \(2\) and blue, green \(2\)"):
        pretrain(make_run(pictures, tmp_path / "run", knn_every=1, knn_data=colours))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_an_unreadable_image_is_named(colours: Path, tmp_path: Path) -> None:
    (colours / "val" / "red" / "1.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"red/1\.png: expected an image"):
        make_monitor(colours).measure(make_run(colours, tmp_path / "run"), ColourEncoder())
