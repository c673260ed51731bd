"""End-to-end against answers by hand, against a plain restatement in float64, and on several processes."""

import copy
import math

import pytest
import torch
from processes import in_processes
from tiny_pretraining import make_tiny_encoder
from torch import nn

from mocobench.runtime.distributed import gather_with_gradient, rank
from pretrain.end_to_end import EndToEnd
from pretrain.moco import contrastive_loss


def test_two_images_by_hand() -> None:
    # Queries and keys of two images, at right angles: every row is [1, 0], so the loss is ln(1 + 1/e).
    model = EndToEnd(nn.Flatten, temperature=1.0)
    views = torch.eye(2).view(2, 2, 1, 1)
    logits, q = model(views, views, torch.tensor([1, 0]))
    assert logits.tolist() == [[1, 0], [1, 0]]
    assert torch.equal(q, torch.eye(2))
    assert contrastive_loss(logits).item() == pytest.approx(math.log(1 + 1 / math.e))


def test_logits_and_gradients_against_a_plain_restatement_in_float64() -> None:
    torch.manual_seed(0)
    model = EndToEnd(lambda: make_tiny_encoder("tiny", dim=4, bn_groups=2), temperature=0.2).double()
    with torch.no_grad():
        for parameter in model.encoder_k.parameters():  # as after some steps
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    plain = copy.deepcopy(model)
    queries, keys = torch.randn(6, 3, 9, 9).double(), torch.randn(6, 3, 9, 9).double()
    shuffle = [2, 0, 5, 1, 3, 4]
    logits, _ = model(queries, keys, torch.tensor(shuffle))
    contrastive_loss(logits).backward()

    q, shuffled = plain.encoder_q(queries), plain.encoder_k(torch.stack([keys[i] for i in shuffle]))
    k = [shuffled[shuffle.index(i)] for i in range(6)]
    cosines = [[q[i] @ k[j] / (q[i] @ q[i] * (k[j] @ k[j])) ** 0.5 / 0.2 for j in range(6)] for i in range(6)]
    loss = -sum(row[i] - sum(value.exp() for value in row).log() for i, row in enumerate(cosines)) / 6
    loss.backward()
    for i, row in enumerate(cosines):
        expected = torch.stack([row[i], *row[:i], *row[i + 1 :]])
        torch.testing.assert_close(logits[i], expected, rtol=1e-9, atol=1e-12)
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-12)
    for encoder in (model.encoder_q, model.encoder_k):  # both learn
        assert encoder.conv1.weight.grad.abs().max() > 1e-3


def gather_and_learn() -> tuple[list[float], list[float]]:
    """Each rank r multiplies the gathered values by 10 to the r; what it gets back is for its own."""
    own = torch.tensor([1.0 + rank()], requires_grad=True)
    together = gather_with_gradient(own)
    (together * torch.tensor([1.0, 2.0]) * 10 ** rank()).sum().backward()
    return together.tolist(), own.grad.tolist()


def test_gradients_come_from_every_process() -> None:
    # Place 0 weighs 1 on rank 0 and 10 on rank 1, place 1 weighs 2 and 20.
    assert in_processes(2, gather_and_learn) == [(0, ([1, 2], [11])), (0, ([1, 2], [22]))]
