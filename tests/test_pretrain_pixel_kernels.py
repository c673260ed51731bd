"""The kernels for a GPU against the operations for any device, by Triton's interpreter on a CPU and on a GPU."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pretrain import pixel_operations as operations

pytest.importorskip("triton")
HEIGHT, WIDTH = 31, 43
ADJUSTMENTS = (
    operations.adjust_brightness,
    operations.adjust_contrast,
    operations.adjust_saturation,
    operations.adjust_hue,
)


def pictures() -> torch.Tensor:
    """Noise, few flat colours (ties, pure colours) and near-grays, 20 of each."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (60, 3, HEIGHT, WIDTH), generator=generator).float()
    noise[::3] = (noise[::3] / 86).floor() * 127
    tints = torch.randint(0, 3, (20, 3, HEIGHT, WIDTH), generator=generator)
    noise[1::3] = (noise[1::3, :1] + tints).clamp(max=255)
    return noise


def drawn() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Operations and factors of jitter, some of them none, and radii of blur."""
    generator = torch.Generator().manual_seed(1)
    order = torch.stack([torch.randperm(4, generator=generator) for _ in range(60)]).int()
    factors = 0.6 + 0.8 * torch.rand(60, 4, generator=generator)
    factors[order == 3] = torch.randint(0, 256, (60,), generator=generator).float()
    order[:5, 2:] = order[5] = -1
    radii = torch.tensor([operations.box_radius(0.1 + number / 30) for number in range(60)])
    radii[::4] = math.nan
    return order, factors, radii


def by_kernels(path: Path, device: str) -> None:
    """Write the pictures after jitter, and after blur, to `path`."""
    from pretrain import pixel_kernels

    order, factors, radii = (values.to(device) for values in drawn())
    jittered, blurred = pictures().to(device), pictures().to(device)
    pixel_kernels.jitter(jittered, order, factors)
    pixel_kernels.box_blur(blurred, radii, reach=math.floor(radii[~radii.isnan()].max()) + 1)
    torch.save([jittered.cpu(), blurred.cpu()], path)


def assert_equal_to_the_operations(path: Path) -> None:
    order, factors, radii = drawn()
    jittered, blurred = pictures(), pictures()
    for step in range(4):
        for operation, adjust in enumerate(ADJUSTMENTS):
            chosen = order[:, step] == operation
            part = jittered[chosen]
            adjust(part, factors[chosen, step].view(-1, 1, 1, 1))
            jittered[chosen] = part
    chosen = ~radii.isnan()
    part = blurred[chosen]
    operations.box_blur(part, radii[chosen].view(-1, 1, 1, 1), reach=math.floor(radii[chosen].max()) + 1)
    blurred[chosen] = part
    assert not torch.equal(jittered, pictures())
    assert not torch.equal(blurred, pictures())
    found = torch.load(path, weights_only=True)
    assert torch.equal(found[0], jittered)
    # Where a sum is a whole level but for its last bit: a CPU may round a product and a sum together.
    assert (found[1] - blurred).abs().max() <= 1
    assert (found[1] != blurred).float().mean() < 1 / 5000


def test_kernels_give_the_same_pixels(tmp_path: Path) -> None:
    """In a process of its own, because the interpreter is chosen when the kernels are imported."""
    tests = Path(__file__).parent
    program = f"from pathlib import Path; from {Path(__file__).stem} import by_kernels; "
    program += f"by_kernels(Path({str(tmp_path / 'found')!r}), 'cpu')"
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    assert_equal_to_the_operations(tmp_path / "found")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_kernels_give_the_same_pixels_on_a_gpu(tmp_path: Path) -> None:
    by_kernels(tmp_path / "found", "cuda")
    assert_equal_to_the_operations(tmp_path / "found")
