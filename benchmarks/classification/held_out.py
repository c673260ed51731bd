"""A part of each class's images, drawn from a seed: those held out of training, to choose settings on, or labelled.

Validation images choose nothing.
"""

from collections.abc import Sequence

import torch

from mocobench.runtime.errors import UserError
from mocobench.runtime.seeds import torch_generator


def hold_out(labels: Sequence[int] | torch.Tensor, *, fraction: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions that are trained on and positions that are held out, both sorted.

    Of every class the fraction, rounded, is held out, at least one image and never the only one.

    Raises:
        UserError: every class has one image.
    """
    require_some_to_hold_out(labels)
    held = draw_of_each_class(labels, fraction=fraction, seed=seed, leave=1)
    trained = torch.ones(len(labels), dtype=torch.bool)
    trained[held] = False
    return trained.nonzero().flatten(), held


def require_some_to_hold_out(labels: Sequence[int] | torch.Tensor) -> None:
    """Refuse, before long work, images of which none can be held out.

    Raises:
        UserError: every class has one image.
    """
    if len(torch.as_tensor(labels).unique()) == len(labels):
        raise UserError(
            "images held out to choose a setting on: expected a class with two training images or more, found one in "
            "each; add images, or use --protocol paper, which has nothing to choose"
        )


def draw_of_each_class(labels: Sequence[int] | torch.Tensor, *, fraction: float, seed: int, leave: int) -> torch.Tensor:
    """Sorted positions of the fraction, rounded, of every class: at least one image, but `leave` so many undrawn."""
    of_image = torch.as_tensor(labels)
    drawn = torch.zeros(len(of_image), dtype=torch.bool)
    for label in of_image.unique().tolist():
        members = (of_image == label).nonzero().flatten()
        count = min(max(round(fraction * len(members)), 1), len(members) - leave)
        order = torch.randperm(len(members), generator=torch_generator(seed, "held-out", label))
        drawn[members[order[:count]]] = True
    return drawn.nonzero().flatten()
