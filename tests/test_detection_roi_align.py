"""RoIAlign on the CPU: bins derived by hand, torchvision's operator, and what res5's first block may rely on."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import roi_align

from benchmarks.detection.embedded.poolers import pool_regions
from benchmarks.detection.embedded.region_stage import POOLED_SIZE, REGION_SIZE, run_on_regions
from benchmarks.detection.embedded.resnet import build_res5
from benchmarks.detection.embedded.roi_align import align

HEIGHT, WIDTH, STRIDE = 12, 17, 16


def some_features(channels: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, channels, HEIGHT, WIDTH, generator=generator)


def some_regions(count: int = 60) -> torch.Tensor:
    """Regions of all sizes, some of them beyond the borders, some empty, some of the whole image."""
    generator = torch.Generator().manual_seed(1)
    size = torch.tensor([WIDTH, HEIGHT]) * STRIDE
    centres = torch.rand(count, 2, generator=generator) * size
    sides = torch.rand(count, 2, generator=generator) ** 3 * size * 1.5
    boxes = torch.cat((centres - sides / 2, centres + sides / 2), dim=1)
    boxes[0] = torch.tensor([0, 0, WIDTH * STRIDE, HEIGHT * STRIDE])
    boxes[1] = torch.tensor([40, 40, 40, 40])
    boxes[2] = torch.tensor([-300, -300, -200, -200])
    boxes[3] = torch.tensor([-8, -8, 2000, 2000])
    images = torch.arange(count)[:, None] % 2
    return torch.cat((images, boxes), dim=1)


def test_a_bin_of_one_sample_is_the_bilinear_value_at_its_centre() -> None:
    features = torch.arange(12.0).view(1, 1, 3, 4)  # the value at (x, y) is x + 4 y
    region = torch.tensor([[0.0, 16, 16, 48, 48]])  # 2 x 2 cells from the corner of cell (1, 1)
    pooled = align(features, region, stride=16, size=2)
    # Bins are one cell large: their centres are the cells (1, 1), (2, 1), (1, 2), (2, 2).
    assert pooled[0, 0].tolist() == [[5, 6], [9, 10]]


def test_a_region_with_twice_the_cells_averages_four_samples_a_bin() -> None:
    features = torch.arange(16.0).view(1, 1, 4, 4)
    pooled = align(features, torch.tensor([[0.0, 0, 0, 64, 64]]), stride=16, size=2)
    # Each bin averages the cells of its quarter.
    assert pooled[0, 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]


@pytest.mark.parametrize("size", [7, 14])
def test_values_and_gradients_are_torchvisions(size: int) -> None:
    features, regions = some_features().requires_grad_(), some_regions()
    expected = roi_align(features, regions, size, 1 / STRIDE, sampling_ratio=0, aligned=True)
    found = align(features, regions, stride=STRIDE, size=size)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)
    weights = torch.randn_like(expected)
    (expected_gradient,) = torch.autograd.grad(expected, features, weights)
    (gradient,) = torch.autograd.grad(found, features, weights)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-4)


def test_every_second_bin() -> None:
    features, regions = some_features(), some_regions()
    whole = align(features, regions, stride=STRIDE, size=14)
    torch.testing.assert_close(align(features, regions, stride=STRIDE, size=14, every=2), whole[:, :, ::2, ::2])


def test_it_commutes_with_a_1x1_convolution() -> None:
    features, regions = some_features(), some_regions()
    kernel = torch.randn(5, 8, 1, 1, generator=torch.Generator().manual_seed(2))
    after = F.conv2d(align(features, regions, stride=STRIDE, size=7), kernel)
    before = align(F.conv2d(features, kernel), regions, stride=STRIDE, size=7)
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-4)


def test_no_region() -> None:
    assert align(some_features(), torch.zeros(0, 5), stride=STRIDE, size=7).shape == (0, 8, 7, 7)


def test_gradients_in_bfloat16_are_summed_in_float32() -> None:
    features, regions = some_features(), some_regions(400)
    features = features.bfloat16()
    exact, rough = features.float().requires_grad_(), features.clone().requires_grad_()
    found = align(rough, regions, stride=STRIDE, size=14)
    assert found.dtype == torch.bfloat16
    (gradient,) = torch.autograd.grad(found.float().sum(), rough)
    (expected,) = torch.autograd.grad(align(exact, regions, stride=STRIDE, size=14).sum(), exact)
    assert (gradient.float() - expected).norm() < 4e-3 * expected.norm()


@pytest.mark.parametrize("stride_in_1x1", [False, True])
def test_res5_on_the_map_first_is_res5_on_each_region(stride_in_1x1: bool) -> None:
    # In float64, where a ReLU at 0 does not open on one side and stay closed on the other.
    torch.manual_seed(0)
    res5 = build_res5(stride_in_1x1=stride_in_1x1, extra_norm=True).double()
    features, numbered = some_features(1024).double().requires_grad_(), some_regions(12).double()
    regions = [numbered[numbered[:, 0] == image, 1:] for image in (0, 1)]
    pool = partial(pool_regions, regions=regions, strides=(STRIDE,), size=POOLED_SIZE)
    assert len(numbered) * REGION_SIZE**2 > 2 * HEIGHT * WIDTH, "else it would run on the regions"
    expected = res5(pool([features]))
    found = run_on_regions(res5, features, regions, stride=STRIDE)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(expected)
    (expected_gradient,) = torch.autograd.grad(expected, features, weights)
    (gradient,) = torch.autograd.grad(found, features, weights)
    torch.testing.assert_close(gradient, expected_gradient)


def test_on_few_regions_res5_runs_on_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.detection.embedded.region_stage._first_block", None)  # to call it would fail
    res5 = build_res5(stride_in_1x1=False, extra_norm=False).eval()
    regions = [torch.tensor([[0.0, 0, 64, 64]]), torch.zeros(0, 4)]
    with torch.no_grad():
        assert run_on_regions(res5, some_features(1024), regions, stride=STRIDE).shape == (1, 2048, 7, 7)
