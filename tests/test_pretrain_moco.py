"""MoCo against answers worked out by hand."""

import copy
import math
from functools import partial
from pathlib import Path

import pytest
import torch
from tiny_pretraining import make_run, make_tiny_encoder
from torch import nn
from torch.nn import functional as F

from mocobench.runtime.seeds import torch_generator
from pretrain.batch_norm import GroupedBatchNorm2d
from pretrain.encoder import make_encoder
from pretrain.methods import make_model
from pretrain.moco import MoCo, contrastive_loss
from pretrain.run import Progress
from pretrain.step import METRICS, Trainer, compute_gradients, make_normaliser


@pytest.fixture
def model() -> MoCo:
    torch.manual_seed(0)
    encoder = partial(make_encoder, "resnet18", dim=8, mlp=True, bn_groups=2, zero_init_residual=False)
    return MoCo(encoder, dim=8, queue_size=10, key_momentum=0.9, temperature=0.2)


def test_loss_by_hand() -> None:
    # positive logit ln 3, two negatives at 0: p = 3 / (3 + 1 + 1)
    logits = torch.tensor([[math.log(3.0), 0.0, 0.0]])
    assert contrastive_loss(logits).item() == pytest.approx(-math.log(3 / 5))


def test_heads() -> None:
    assert isinstance(make_encoder("resnet18", dim=8, mlp=False, bn_groups=1, zero_init_residual=False).fc, nn.Linear)
    head = make_encoder("resnet50", dim=8, mlp=True, bn_groups=1, zero_init_residual=False).fc
    assert [tuple(p.shape) for p in head.parameters()] == [(2048, 2048), (2048,), (8, 2048), (8,)]


def test_the_stem_for_small_pictures() -> None:
    encoder = make_encoder("resnet18", dim=8, mlp=False, bn_groups=1, zero_init_residual=False, stem="3x3")
    assert encoder.conv1.weight.shape == (64, 3, 3, 3)
    sizes = []
    encoder.layer1.register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].shape)))
    assert encoder(torch.randn(2, 3, 32, 32)).shape == (2, 8)
    assert sizes == [(2, 64, 32, 32)]  # neither the convolution nor a pooling has made it smaller
    canonical = make_encoder("resnet18", dim=8, mlp=False, bn_groups=1, zero_init_residual=False)
    assert encoder.state_dict().keys() == canonical.state_dict().keys()


def test_key_encoder_starts_as_a_copy_without_gradient(model: MoCo) -> None:
    for query, key in zip(model.encoder_q.parameters(), model.encoder_k.parameters(), strict=True):
        assert torch.equal(query, key)
        assert not key.requires_grad


def test_key_encoder_moves_a_tenth_of_the_way(model: MoCo) -> None:
    before = model.encoder_k.conv1.weight.clone()
    with torch.no_grad():
        model.encoder_q.conv1.weight.add_(1.0)
    model.update_key_encoder()
    assert torch.allclose(model.encoder_k.conv1.weight, before + 0.1, atol=1e-6)


def test_batch_norm_statistics_of_the_key_encoder_are_its_own(model: MoCo) -> None:
    model.train()
    with torch.no_grad():
        model(torch.randn(4, 3, 32, 32), torch.randn(4, 3, 32, 32) + 5, torch.arange(4))
    assert not torch.allclose(model.encoder_q.bn1.running_mean, model.encoder_k.bn1.running_mean)


def test_queue_starts_normalised(model: MoCo) -> None:
    assert model.queue.shape == (8, 10)
    assert torch.allclose(model.queue.norm(dim=0), torch.ones(10))


def test_queue_wraps_around(model: MoCo) -> None:
    keys = [torch.full((4, 8), float(i)) for i in range(3)]
    for batch in keys:
        model.enqueue(batch)
    # 4 + 4 + 4 keys into 10 places: the third batch fills places 8, 9, 0, 1
    assert model.queue[0].tolist() == [2, 2, 0, 0, 1, 1, 1, 1, 2, 2]
    assert model.queue_ptr.item() == 2


def test_more_keys_than_places_keeps_the_newest(model: MoCo) -> None:
    model.enqueue(torch.arange(23.0).view(23, 1).expand(23, 8))
    assert sorted(model.queue[0].tolist()) == list(range(13, 23))
    assert model.queue_ptr.item() == 3
    assert model.queue[0, 2].item() == 22  # the newest key stands just before the pointer


def test_logits_against_a_plain_restatement_in_float64(model: MoCo) -> None:
    model = model.double().eval()  # eval: BN statistics do not move between the two computations
    queries, keys = torch.randn(4, 3, 32, 32).double(), torch.randn(4, 3, 32, 32).double()
    queue = model.queue.clone()
    with torch.no_grad():
        q = model.encoder_q(queries)
        k = model.encoder_k(keys)
    q, k = q / q.norm(dim=1, keepdim=True), k / k.norm(dim=1, keepdim=True)
    expected = torch.stack(
        [torch.stack([q[i] @ k[i], *(q[i] @ queue[:, j] for j in range(10))]) / 0.2 for i in range(4)]
    )
    logits, embedded = model(queries, keys, torch.tensor([2, 0, 3, 1]))
    assert torch.allclose(logits, expected, atol=1e-9)
    assert torch.allclose(embedded, q, atol=1e-9)
    assert torch.allclose(model.queue[:, :4], k.T, atol=1e-9)  # enqueued after the logits were taken


def test_symmetric_is_both_directions_one_below_the_other(model: MoCo) -> None:
    """The authors' demo adds the losses of (a, b) and (b, a), taken with the same queue, and enqueues both keys."""
    model = model.double().eval()
    a, b = torch.randn(4, 3, 32, 32).double(), torch.randn(4, 3, 32, 32).double()
    shuffle, queue = torch.tensor([2, 0, 3, 1]), model.queue.clone()
    one_way, q_a = model(a, b, shuffle)
    k_b = model.queue[:, :4].clone()
    model.queue.copy_(queue)
    other_way, q_b = model(b, a, shuffle)
    k_a = model.queue[:, 4:8].clone()
    model.queue.copy_(queue)
    model.queue_ptr.zero_()
    model.symmetric = True
    logits, embedded = model(a, b, shuffle)
    torch.testing.assert_close(logits, torch.cat([one_way, other_way]))
    torch.testing.assert_close(embedded, torch.cat([q_a, q_b]))
    torch.testing.assert_close(model.queue[:, :8], torch.cat([k_b, k_a], dim=1))
    assert model.queue_ptr.item() == 8


def test_a_step_adds_the_two_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pretrain.methods.make_encoder", make_tiny_encoder)
    run = make_run(tmp_path, tmp_path, differing={"symmetric": True})
    model, optimizer = make_model(run)
    views = torch.randint(256, (4, 2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    normalise = make_normaliser(run)
    one, other = (normalise(views[:, place]) for place in (0, 1))
    shuffle = torch.randperm(4, generator=torch_generator(run.seed, "shuffle", 0, 0))
    with torch.no_grad():
        logits, _ = copy.deepcopy(model)(one, other, shuffle)
    found = Trainer(run, model, optimizer).step(views, Progress()).wait()
    expected = contrastive_loss(logits[:4]) + contrastive_loss(logits[4:])
    assert found["loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_batch_norm_sees_one_group_at_a_time() -> None:
    images = torch.randn(6, 5, 4, 4)
    grouped, plain = GroupedBatchNorm2d(5, num_groups=3), nn.BatchNorm2d(5)
    with torch.no_grad():
        expected = torch.cat([plain(images[0:2]), plain(images[2:4]), plain(images[4:6])])
        assert torch.equal(grouped(images), expected)
    assert grouped.state_dict().keys() == plain.state_dict().keys()


def test_running_statistics_move_towards_the_mean_of_the_groups() -> None:
    # one channel, groups of the values {0, 2} and {4, 10}: means 1 and 7, unbiased variances 2 and 18
    grouped = GroupedBatchNorm2d(1, num_groups=2)
    grouped(torch.tensor([0.0, 2.0, 4.0, 10.0]).view(4, 1, 1, 1))
    assert grouped.running_mean.item() == pytest.approx(0.1 * 4)  # momentum 0.1, from 0
    assert grouped.running_var.item() == pytest.approx(0.9 + 0.1 * 10)  # from 1
    assert grouped.num_batches_tracked.item() == 1
    plain = nn.BatchNorm2d(1)
    plain.load_state_dict(grouped.state_dict())
    images = torch.randn(4, 1, 2, 2)
    assert torch.equal(grouped.eval()(images), plain.eval()(images))


def test_one_group_over_processes_is_batch_norm_with_its_gradients() -> None:
    """In a single process, by the way that several take; two processes are in test_pretrain_simclr.py."""
    torch.manual_seed(0)
    grouped, plain = GroupedBatchNorm2d(4, num_groups=1).double(), nn.BatchNorm2d(4).double()
    nn.init.uniform_(grouped.weight, 0.5, 2.0)
    nn.init.normal_(grouped.bias)
    plain.load_state_dict(grouped.state_dict())
    images, upstream = torch.randn(2, 6, 4, 5, 3).double()
    images.requires_grad_()
    outputs = [grouped._normalise_over_processes(images), plain(images)]
    gradients = [
        torch.autograd.grad(output, [images, bn.weight, bn.bias], upstream)
        for output, bn in zip(outputs, (grouped, plain), strict=True)
    ]
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(grouped.running_mean, plain.running_mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(grouped.running_var, plain.running_var, rtol=1e-12, atol=0)


def test_gradients_of_one_group_over_processes_are_as_precise_in_bfloat16() -> None:
    torch.manual_seed(0)
    exact, grouped = nn.BatchNorm2d(4).double(), GroupedBatchNorm2d(4, num_groups=1)
    images, upstream = torch.randn(2, 16, 4, 20, 20).bfloat16()
    gradients = [
        torch.autograd.grad(output, [bn.weight, bn.bias], upstream.to(output.dtype))
        for output, bn in (
            (exact(images.double()), exact),
            (grouped._normalise_over_processes(images.requires_grad_()), grouped),
        )
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(other.double(), one, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(("precision", "kind"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_networks_compute_in_the_precision_asked_for_and_in_channels_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, kind: torch.dtype
) -> None:
    monkeypatch.setattr("pretrain.methods.make_encoder", make_tiny_encoder)
    run = make_run(tmp_path, tmp_path / "run", precision=precision)
    model, optimizer = make_model(run)
    maps: list[torch.Tensor] = []
    for encoder in (model.encoder_q, model.encoder_k):
        encoder.conv1.register_forward_hook(lambda module, inputs, output: maps.extend((inputs[0], output)))
    Trainer(run, model, optimizer).step(torch.randint(0, 256, (4, 2, 3, 16, 16), dtype=torch.uint8), Progress())
    assert [each.dtype for each in maps[1::2]] == [kind, kind]
    tensors = [*maps, model.encoder_q.conv1.weight]
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in tensors)
    assert not any(each.is_contiguous() for each in tensors)
    others = [model.queue, *model.parameters()]
    assert {each.dtype for each in others} == {torch.float32}


def test_shuffled_keys_come_back_in_order(model: MoCo) -> None:
    # in eval mode a key does not depend on its neighbours, so only the order could differ
    model = model.eval()
    queries, keys, queue = torch.randn(4, 3, 32, 32), torch.randn(4, 3, 32, 32), model.queue.clone()
    plain, _ = model(queries, keys, torch.arange(4))
    model.queue.copy_(queue)
    shuffled, _ = model(queries, keys, torch.tensor([3, 0, 2, 1]))
    assert torch.allclose(plain, shuffled, atol=1e-5)


def test_gradient_reaches_the_query_encoder_only(model: MoCo) -> None:
    logits, _ = model(torch.randn(4, 3, 32, 32), torch.randn(4, 3, 32, 32), torch.arange(4))
    contrastive_loss(logits).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.encoder_q.fc.parameters())
    assert all(p.grad is None for p in model.encoder_k.parameters())


def test_state_has_the_names_of_the_authors_code(model: MoCo) -> None:
    names = set(model.state_dict())
    assert {"queue", "queue_ptr", "encoder_q.conv1.weight", "encoder_k.fc.2.bias"} <= names
    assert {name.split(".")[0] for name in names} == {"encoder_q", "encoder_k", "queue", "queue_ptr"}


def test_loss_is_that_of_cross_entropy_with_class_zero(model: MoCo) -> None:
    logits = torch.randn(5, 11)
    assert contrastive_loss(logits) == F.cross_entropy(logits, torch.zeros(5, dtype=torch.long))


class GivenEmbeddings(nn.Module):
    """A method whose embeddings and logits are given: cosines with one positive and one negative, over 0.1."""

    def __init__(self, embeddings: torch.Tensor, cosines: tuple[float, float]) -> None:
        super().__init__()
        self.embeddings = nn.Parameter(embeddings)
        self.cosines = torch.tensor(cosines)

    def forward(self, queries: torch.Tensor, keys: torch.Tensor, shuffle: torch.Tensor) -> tuple[torch.Tensor, ...]:
        logits = (self.cosines / 0.1).expand(len(queries), 2) + 0 * self.embeddings.sum()
        return logits, self.embeddings


@pytest.mark.parametrize(
    ("embeddings", "spread"),
    [
        (torch.tensor([[0.6, 0.8]]).repeat(8, 1), 0.0),  # collapsed to a point
        (torch.cat([torch.eye(4), -torch.eye(4)]), math.sqrt(2 / 7 * 4)),  # in each of 4 dimensions 1, -1 and six zeros
    ],
)
def test_metrics_by_hand(tmp_path: Path, embeddings: torch.Tensor, spread: float) -> None:
    run = make_run(tmp_path, tmp_path, differing={"temperature": 0.1})
    views = torch.zeros(8, 2, 3, 4, 4, dtype=torch.uint8)
    model = GivenEmbeddings(embeddings, (0.3, -0.2))
    values = compute_gradients(run, model, make_normaliser(run), views, torch.arange(8))
    metrics = dict(zip(METRICS, values.tolist(), strict=True))
    assert metrics.pop("embedding_spread") == pytest.approx(spread, abs=1e-6)
    assert metrics == pytest.approx(
        {
            "loss": math.log(1 + math.exp(-5)),  # logits 3 and -2
            "accuracy": 100.0,
            "positive_similarity": 0.3,
            "negative_similarity": -0.2,
        },
        abs=1e-6,
    )
