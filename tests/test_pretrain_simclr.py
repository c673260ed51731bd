"""SimCLR against answers by hand and a plain restatement in float64; LARS by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import in_processes
from tiny_pretraining import assert_same_state, draw_pictures, load, make_run, make_tiny_encoder, run_tiny
from torch import nn

from mocobench.runtime.distributed import average_over_ranks, own_part, sum_gradients, world_size
from pretrain.checkpoint import LAST, save_checkpoint
from pretrain.lars import LARS
from pretrain.methods import make_model
from pretrain.moco import contrastive_loss
from pretrain.recipes import RECIPES, customise
from pretrain.run import Progress
from pretrain.simclr import SimCLR, make_projection_head
from transfer.load import load_backbone


def test_two_images_by_hand() -> None:
    # The views of image 0 are e1 and e1, those of image 1 are e2 and -e2: cosines 1 and -1 within, 0 across. With T 1
    # image 0's rows are [1, 0, 0] and image 1's [-1, 0, 0]; NT-Xent is the mean of ln(1 + 2/e) and ln(1 + 2e).
    queries, keys = torch.eye(2).view(2, 2, 1, 1), torch.tensor([[1.0, 0.0], [0.0, -1.0]]).view(2, 2, 1, 1)
    logits, embedded = SimCLR(nn.Flatten(), temperature=1.0)(queries, keys, torch.arange(2))
    assert logits.tolist() == [[1, 0, 0], [1, 0, 0], [-1, 0, 0], [-1, 0, 0]]
    assert embedded.tolist() == [[1, 0], [1, 0], [0, 1], [0, -1]]
    expected = (math.log(1 + 2 / math.e) + math.log(1 + 2 * math.e)) / 2
    assert contrastive_loss(logits).item() == pytest.approx(expected)


def test_loss_and_gradients_against_algorithm_1_in_float64() -> None:
    torch.manual_seed(0)
    encoder = make_tiny_encoder("tiny", dim=4, bn_groups=1).double()
    queries, keys = torch.randn(5, 3, 9, 9).double(), torch.randn(5, 3, 9, 9).double()
    logits, _ = SimCLR(encoder, temperature=0.1)(queries, keys, torch.arange(5))
    loss = contrastive_loss(logits)
    (gradient,) = torch.autograd.grad(loss, encoder.conv1.weight)

    views = [view for pair in zip(queries, keys, strict=True) for view in pair]  # x_2k-1 and x_2k of image k
    z = encoder(torch.stack(views))
    s = [[z[i] @ z[j] / (z[i].norm() * z[j].norm()) for j in range(10)] for i in range(10)]
    term = {
        (i, j): -(s[i][j] / 0.1) + sum((s[i][k] / 0.1).exp() for k in range(10) if k != i).log()
        for i in range(10)
        for j in range(10)
    }
    expected = sum(term[2 * k, 2 * k + 1] + term[2 * k + 1, 2 * k] for k in range(5)) / 10
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    (plain,) = torch.autograd.grad(expected, encoder.conv1.weight)
    torch.testing.assert_close(gradient, plain, rtol=1e-8, atol=1e-12)


def test_both_views_are_in_the_batch_statistics_once() -> None:
    torch.manual_seed(0)
    encoder = make_tiny_encoder("tiny", dim=4, bn_groups=1)
    queries, keys = torch.randn(4, 3, 9, 9), torch.randn(4, 3, 9, 9) + 2
    SimCLR(encoder, temperature=0.1)(queries, keys, torch.arange(4))
    mean = encoder.conv1(torch.cat([queries, keys])).mean(dim=(0, 2, 3))
    torch.testing.assert_close(encoder.bn1.running_mean, 0.1 * mean, rtol=1e-4, atol=1e-6)
    assert encoder.bn1.num_batches_tracked == 1


def test_the_head_is_two_layers_with_bn_after_each() -> None:
    torch.manual_seed(0)
    head = make_projection_head(6, 4, bn_groups=1)
    features = torch.randn(8, 6)
    hidden = features @ head[0].weight.T
    hidden = ((hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt()).clamp(min=0)
    out = hidden @ head[3].weight.T
    out = (out - out.mean(0)) / (out.var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(head(features), out, rtol=1e-4, atol=1e-5)
    assert [name for name, p in head.named_parameters() if p.requires_grad] == [
        *("0.weight", "1.weight", "1.bias", "3.weight", "4.weight")
    ]


def steps_in_float64(num_steps: int, bn_groups: int) -> dict[str, np.ndarray]:
    """Weights and statistics after steps on eight images, however many processes share them.

    In float64, because SimCLR of so few small pictures doubles a difference in rounding with nearly every step.
    """
    torch.manual_seed(0)
    encoder = make_tiny_encoder("tiny", dim=4, bn_groups=bn_groups).double()
    encoder.fc = make_projection_head(8, 4, bn_groups=bn_groups).double()
    model = SimCLR(encoder, temperature=0.1)
    optimizer = LARS(model.parameters(), lr=1.0, momentum=0.9, weight_decay=1e-6)
    for _ in range(num_steps):
        queries, keys = torch.randn(2, 8, 3, 9, 9).double()
        logits, _ = model(own_part(queries), own_part(keys), torch.arange(8))
        optimizer.zero_grad()
        (contrastive_loss(logits) / world_size()).backward()
        sum_gradients(parameter for parameter in model.parameters() if parameter.requires_grad)
        optimizer.step()
        average_over_ranks([buffer for name, buffer in model.named_buffers() if ".running_" in name])
    return {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("bn_groups", [1, 2])
def test_two_processes_equal_one_with_as_many_groups(bn_groups: int) -> None:
    """One group is that of the whole batch, on however many processes it is."""
    (_, one), *two = in_processes(1, steps_in_float64, 20, bn_groups) + in_processes(2, steps_in_float64, 20, bn_groups)
    (_, start) = in_processes(1, steps_in_float64, 0, bn_groups)[0]
    (_, other) = in_processes(1, steps_in_float64, 20, 4)[0]
    for differing in (start, other):
        assert np.abs(one["encoder_q.conv1.weight"] - differing["encoder_q.conv1.weight"]).max() > 1e-3
    for _, state in two:
        assert state.keys() == one.keys()
        for name, values in state.items():
            np.testing.assert_allclose(values, one[name], rtol=1e-7, atol=1e-9, err_msg=name)


def test_lars_by_hand() -> None:
    weight, bias = nn.Parameter(torch.tensor([[3.0, 4.0]])), nn.Parameter(torch.tensor([1.0]))
    optimizer = LARS([weight, bias], lr=2.0, momentum=0.5, weight_decay=0.1)
    # |w| = 5; gradient + 0.1 w = [0.3, 0.4] + [0.3, 0.4], of size 1; trust = 0.001 * 5 / 1
    weight.grad, bias.grad = torch.tensor([[0.3, 0.4]]), torch.tensor([0.25])
    optimizer.step()
    torch.testing.assert_close(weight.data, torch.tensor([[3 - 2 * 0.005 * 0.6, 4 - 2 * 0.005 * 0.8]]))
    assert bias.item() == 1 - 2 * 0.25  # no trust, no decay
    # The rate is inside the momentum: half of what was moved before comes again, whatever the rate is now.
    optimizer.param_groups[0]["lr"] = 0.0
    moved = weight.data.clone()
    optimizer.step()
    torch.testing.assert_close(weight.data, moved - 0.5 * torch.tensor([[0.006, 0.008]]))
    assert bias.item() == 0.5 - 0.25


@pytest.mark.parametrize(("weight", "gradient"), [(0.0, 1.0), (1.0, 0.0)])
def test_lars_trusts_fully_where_a_size_is_zero(weight: float, gradient: float) -> None:
    parameter = nn.Parameter(torch.full((1, 1), weight))
    parameter.grad = torch.full((1, 1), gradient)
    LARS([parameter], lr=0.5, momentum=0.9, weight_decay=0.0).step()
    assert parameter.item() == weight - 0.5 * gradient


def test_lars_leaves_what_has_no_gradient() -> None:
    parameter = nn.Parameter(torch.ones(2, 2))
    LARS([parameter], lr=0.5, momentum=0.9, weight_decay=0.1).step()
    assert torch.equal(parameter.data, torch.ones(2, 2))


def test_a_run_that_is_killed_ends_as_one_that_is_not(tmp_path: Path) -> None:
    """Warm-up and cosine go on in the middle of an epoch, and so does LARS."""
    data = draw_pictures(tmp_path / "pictures")
    changes = {"epochs": 14, "batch_size": 4, "image_size": 16}
    recipe, _ = customise(RECIPES["simclr-sqrt-256-200ep"], changes)
    settings = {"recipe": recipe, "checkpoint_every": 1}
    assert in_processes(1, run_tiny, data, tmp_path / "whole", **settings) == [(0, LAST)]
    assert in_processes(1, run_tiny, data, tmp_path / "killed", kill=("step", 24), **settings)[0][0] != 0
    assert in_processes(1, run_tiny, data, tmp_path / "killed", **settings) == [(0, LAST)]
    whole = load(tmp_path / "whole" / LAST)
    assert_same_state(whole, load(tmp_path / "killed" / LAST))
    assert {name.split(".")[1] for name in whole["state_dict"]} == {"encoder_q"}
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    # Two steps an epoch: the last rate of epoch 5 is that of 4.5 epochs, and at 12 half of the cosine is done.
    rates = [line["learning_rate"] / recipe.learning_rate for line in lines]
    assert rates[4] == pytest.approx(0.45)
    assert rates[11] == pytest.approx(0.5 * (1 + math.cos(math.pi * 1.5 / 4)))


@pytest.mark.parametrize(
    ("name", "method"),
    [("simclr-256-200ep", "SimCLR, MLP head"), ("end-to-end-200ep", "end-to-end, MLP head")],
)
def test_transfer_reads_the_encoder_and_names_the_method(tmp_path: Path, name: str, method: str) -> None:
    recipe, _ = customise(RECIPES[name], {"arch": "resnet18"})
    run = make_run(tmp_path, tmp_path / "run", recipe=recipe)
    model, optimizer = make_model(run)
    save_checkpoint(run, data={}, progress=Progress(epoch=200), model=model, optimizer=optimizer)
    backbone = load_backbone(run.out / LAST)
    assert (backbone.provenance.method, backbone.provenance.recipe) == (method, name)
    assert backbone.input.mean == recipe.augmentation.mean
    assert torch.equal(backbone.tensors["conv1.weight"], model.encoder_q.conv1.weight)
