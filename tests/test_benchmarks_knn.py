"""Weighted kNN: the vote by hand, blocks that change nothing, and the task end to end."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import in_processes
from safetensors.torch import load_file
from torch.nn import functional as F

from benchmarks.classification.knn import run_knn
from benchmarks.classification.protocol import KnnProtocol
from benchmarks.context import RunContext
from mocobench.runtime.distributed import rank
from mocobench.runtime.errors import UserError
from mocobench.runtime.neighbors import half_precision_bank, knn_accuracies, knn_predictions, nearest, vote
from transfer.network import random_backbone

CPU = torch.device("cpu")
CONTEXT = RunContext(seed=0, device=CPU, precision="fp32", num_workers=0)


def test_vote_by_hand() -> None:
    # Class 0 has one neighbour at cosine 0.9, class 1 two at 0.7.
    cosines, labels = torch.tensor([[0.9, 0.7, 0.7]]), torch.tensor([[0, 1, 1]])
    # T = 1: e^0.9 = 2.46 < 2 e^0.7 = 4.03. T = 0.1: e^9 = 8103 > 2 e^7 = 2193.
    assert vote(cosines, labels, num_classes=2, temperature=1.0).tolist() == [1]
    assert vote(cosines, labels, num_classes=2, temperature=0.1).tolist() == [0]
    # The two sums are equal where e^(0.2 / T) = 2.
    tie = 0.2 / math.log(2)
    assert vote(cosines, labels, num_classes=2, temperature=tie * 1.01).tolist() == [1]
    assert vote(cosines, labels, num_classes=2, temperature=tie * 0.99).tolist() == [0]


def test_a_vote_of_weights_that_float32_cannot_hold_by_hand() -> None:
    # Relative to the nearest, class 1 has 1 + e^-1 + e^-2 = 1.50 and class 0 has e^-9; e^99 itself is beyond float32.
    cosines, labels = torch.tensor([[0.99, 0.98, 0.97, 0.90]]), torch.tensor([[1, 1, 1, 0]])
    assert vote(cosines, labels, num_classes=2, temperature=0.01).tolist() == [1]


def test_nearest_by_hand() -> None:
    bank = torch.tensor([[2.0, 0.0], [0.0, 5.0], [3.0, 3.0], [-1.0, 0.0]])
    cosines, positions = nearest(torch.tensor([[10.0, 1.0]]), bank, k=3, device=CPU)
    assert positions.tolist() == [[0, 2, 1]]
    length = math.sqrt(101)
    expected = torch.tensor([[10 / length, 11 / math.sqrt(2) / length, 1 / length]])
    torch.testing.assert_close(cosines, expected)


@pytest.mark.parametrize("bank_block", [1, 7, 50, 1000])
def test_blocks_of_the_bank_change_nothing(bank_block: int) -> None:
    generator = torch.Generator().manual_seed(0)
    bank, queries = torch.randn(200, 16, generator=generator), torch.randn(30, 16, generator=generator)
    all_cosines = F.normalize(queries, dim=1) @ F.normalize(bank, dim=1).T
    expected, expected_positions = all_cosines.sort(dim=1, descending=True)
    cosines, positions = nearest(queries, bank, k=20, device=CPU, bank_block=bank_block)
    assert torch.equal(positions, expected_positions[:, :20])
    torch.testing.assert_close(cosines, expected[:, :20])


def test_accuracy_for_each_k_by_hand() -> None:
    # On the unit circle, by angle: 10 degrees is of class 0; 30, 32 and 34 are of class 1, like both queries.
    def at(*degrees: float) -> torch.Tensor:
        angles = torch.tensor(degrees).deg2rad()
        return torch.stack([angles.cos(), angles.sin()], dim=1)

    bank = (at(10, 30, 32, 34), torch.tensor([0, 1, 1, 1]))
    queries = (at(18, 38), torch.tensor([1, 1]))
    accuracies = knn_accuracies(bank, queries, neighbors=(1, 4), num_classes=2, temperature=0.07, device=CPU)
    # At 18 degrees the nearest, 8 away, is of class 0. Of all four, those 12, 14 and 16 away outvote it: relative to
    # its weight, exp((cos 12 - cos 8) / 0.07) + ... = 0.84 + 0.75 + 0.66. At 38 degrees both are right.
    assert accuracies == {1: 50.0, 4: 100.0}


@pytest.mark.parametrize("bank_block", [2, 3, 100])
def test_of_equal_cosines_the_first_in_the_bank_is_nearer(bank_block: int) -> None:
    east, north = [1.0, 0.0], [0.0, 1.0]
    bank = torch.tensor([north, east, east, north, east, east, north])
    for k in range(1, 8):
        cosines, positions = nearest(torch.tensor([east, north]), bank, k=k, device=CPU, bank_block=bank_block)
        assert positions.tolist() == [[1, 2, 4, 5, 0, 3, 6][:k], [0, 3, 6, 1, 2, 4, 5][:k]]
        assert cosines.tolist() == [[1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0][:k], [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0][:k]]


def test_of_equal_votes_the_first_class_wins() -> None:
    cosines, labels = torch.tensor([[0.5, 0.5, 0.5, 0.5]]), torch.tensor([[2, 1, 1, 2]])
    assert vote(cosines, labels, num_classes=3, temperature=0.07).tolist() == [1]


def test_equal_to_scikit_learn() -> None:
    from sklearn.neighbors import KNeighborsClassifier

    generator = torch.Generator().manual_seed(2)
    features, labels = torch.randn(400, 12, generator=generator), torch.arange(400) % 4
    features += 1.5 * F.one_hot(labels, 12)
    bank, queries = (features[:300], labels[:300]), (features[300:], labels[300:])
    found = knn_accuracies(bank, queries, neighbors=(1, 7, 50), num_classes=4, temperature=0.07, device=CPU)
    for k, accuracy in found.items():
        # scikit-learn's cosine distance is 1 - cosine.
        peer = KNeighborsClassifier(k, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07))
        peer.fit(bank[0].numpy(), bank[1].numpy())
        assert accuracy == pytest.approx(100 * peer.score(queries[0].numpy(), queries[1].numpy()))


def test_a_bank_in_half_precision_has_the_same_neighbors() -> None:
    generator = torch.Generator().manual_seed(3)
    bank, queries = torch.randn(100, 8, generator=generator).half(), torch.randn(10, 8, generator=generator)
    cosines, positions = nearest(queries, bank, k=9, device=CPU)
    expected, expected_positions = nearest(queries, bank.float(), k=9, device=CPU)
    assert torch.equal(cosines, expected)
    assert torch.equal(positions, expected_positions)


def test_a_bank_of_half_precision_by_hand() -> None:
    # 3, 4 and 0 over their length are 0.6, 0.8 and 0; float16 has 11 bits for them: steps of 2 ** -11.
    bank = half_precision_bank(torch.tensor([[3e6, 4e6, 0.0], [0.0, 0.0, 1e-8]]))
    assert bank.dtype == torch.float16
    assert bank.float().tolist() == [[1229 / 2048, 819 / 1024, 0.0], [0.0, 0.0, 1.0]]


def test_half_precision_moves_a_cosine_by_at_most_a_rounding() -> None:
    features = torch.randn(500, 64, generator=torch.Generator().manual_seed(4)).relu()
    moved = (F.normalize(half_precision_bank(features).double(), dim=1) - F.normalize(features.double(), dim=1)) @ (
        F.normalize(features[:50].double(), dim=1).T
    )
    assert 0 < moved.abs().max() < 2**-11
    assert moved.std() < 2**-14


@pytest.mark.parametrize("bank_block", [64, 10_000])
def test_the_search_of_a_half_precision_bank_is_exact(bank_block: int) -> None:
    generator = torch.Generator().manual_seed(5)
    bank = half_precision_bank(torch.randn(700, 32, generator=generator).relu())
    queries = torch.randn(40, 32, generator=generator).relu()
    cosines, positions = nearest(queries, bank, k=30, device=CPU, bank_block=bank_block)
    expected = F.normalize(queries.double(), dim=1) @ F.normalize(bank.double(), dim=1).T
    ranked, expected_positions = expected.sort(dim=1, descending=True)
    assert torch.equal(positions, expected_positions[:, :30])
    torch.testing.assert_close(cosines.double(), ranked[:, :30], rtol=0, atol=1e-6)


def test_kept_features_change_no_number(bright_and_dark: Path, tmp_path: Path) -> None:
    protocol = KnnProtocol(id="x", expected_images=(), image_size=32, test_resize=36, neighbors=(1, 5))
    backbone = random_backbone("resnet18", 0)
    expected = run_knn(backbone, bright_and_dark, protocol, CONTEXT)
    for _ in range(2):  # written, then read
        assert run_knn(backbone, bright_and_dark, protocol, replace(CONTEXT, features=tmp_path / "kept")) == expected
    kinds = {load_file(path)["features"].dtype for path in (tmp_path / "kept").iterdir()}
    assert kinds == {torch.float32, torch.float16}  # queries and bank


def vote_by_parts(sizes: list[int]) -> dict[int, float]:
    """Accuracies by a bank of which each rank has its part; many of its cosines are equal."""
    generator = torch.Generator().manual_seed(0)
    bank, queries = (torch.randint(-1, 2, (count, 4), generator=generator).float() for count in (300, 1500))
    bank_labels, labels = (torch.randint(5, (count,), generator=generator) for count in (300, 1500))
    own = [part.split(sizes)[rank()] for part in (bank, bank_labels)]
    options = {"neighbors": (1, 20, 200), "num_classes": 5, "temperature": 0.1, "device": CPU}
    return knn_accuracies((own[0], own[1]), (queries, labels), bank_is_shared_out=True, **options)


@pytest.mark.parametrize("sizes", [[100, 150, 50], [0, 1, 299]])
def test_ranks_that_have_parts_of_the_bank_find_what_one_finds(sizes: list[int]) -> None:
    whole = vote_by_parts([300])
    assert in_processes(3, vote_by_parts, sizes) == [(0, whole)] * 3
    assert len(set(whole.values())) == 3


def test_the_task_votes_by_a_half_precision_bank(bright_and_dark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    banks, search = [], knn_predictions

    def keep(bank, *arguments, **keywords):
        banks.append(bank[0])
        return search(bank, *arguments, **keywords)

    monkeypatch.setattr("benchmarks.classification.knn.knn_predictions", keep)
    protocol = KnnProtocol(id="x", expected_images=(), image_size=32, test_resize=36, neighbors=(1,))
    run_knn(random_backbone("resnet18", 0), bright_and_dark, protocol, CONTEXT)
    (bank,) = banks
    assert bank.dtype == torch.float16
    torch.testing.assert_close(bank.float().norm(dim=1), torch.ones(12), rtol=0, atol=1e-3)


def test_every_query_in_the_bank_finds_itself() -> None:
    features = torch.randn(50, 8, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(50) % 5
    accuracies = knn_accuracies(
        (features * 3, labels), (features, labels), neighbors=(1,), num_classes=5, temperature=0.07, device=CPU
    )
    assert accuracies == {1: 100.0}


def test_the_task_end_to_end(bright_and_dark: Path) -> None:
    protocol = KnnProtocol(id="x", expected_images=(), image_size=32, test_resize=36, neighbors=(1, 5))
    measurement = run_knn(random_backbone("resnet18", 0), bright_and_dark, protocol, CONTEXT)
    assert measurement.metrics == {"top1_k1": 100.0, "top1_k5": 100.0}
    assert measurement.metric_info.keys() == measurement.metrics.keys()
    assert measurement.data.splits["train"].images == 12
    assert measurement.details["feature_norm"] > 0


def test_more_neighbors_than_images_stops_before_any_work(bright_and_dark: Path) -> None:
    (bright_and_dark / "val" / "dark" / "0.png").write_bytes(
        b"not an image"
    )  # would be met as soon as features are computed
    protocol = KnnProtocol(id="x", expected_images=(), image_size=32, test_resize=36, neighbors=(2, 13))
    with pytest.raises(
        UserError, match="--neighbors 2,13: expected at most the 12 training images, found 13; use fewer"
    ):
        run_knn(random_backbone("resnet18", 0), bright_and_dark, protocol, CONTEXT)


@pytest.mark.slow
def test_real_photos_are_told_apart_better_than_by_chance(shared_data: Path) -> None:
    protocol = KnnProtocol(id="x", expected_images=(), image_size=56, test_resize=64, neighbors=(20,))
    measurement = run_knn(random_backbone("resnet18", 0), shared_data / "imagenette-mini", protocol, CONTEXT)
    assert {name: split.images for name, split in measurement.data.splits.items()} == {"train": 600, "val": 200}
    # Ten classes: chance is 10 %, with a standard deviation of 2.1 % over 200 images.
    assert measurement.metrics["top1_k20"] > 15.0
