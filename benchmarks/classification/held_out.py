"""A part of the training images held out of training, to choose settings on: validation images choose nothing."""

from collections.abc import Sequence

import torch

from mocobench.runtime.seeds import torch_generator


def hold_out(labels: Sequence[int] | torch.Tensor, *, fraction: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions that are trained on and positions that are held out, both sorted.

    Of every class the fraction, rounded, is held out, at least one image and never the only one.
    """
    of_image = torch.as_tensor(labels)
    held = torch.zeros(len(of_image), dtype=torch.bool)
    for label in of_image.unique().tolist():
        members = (of_image == label).nonzero().flatten()
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        order = torch.randperm(len(members), generator=torch_generator(seed, "held-out", label))
        held[members[order[:count]]] = True
    return (~held).nonzero().flatten(), held.nonzero().flatten()
