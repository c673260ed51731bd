"""Weights that a file holds in half precision, as the float32 that a Backbone has: wider, and the very same numbers."""

from collections.abc import Iterable

import torch

HALVES = {torch.float16: "float16", torch.bfloat16: "bfloat16"}


def widen(tensors: dict[str, torch.Tensor], names: Iterable[str]) -> str | None:
    """Replace the named tensors that are in half precision by their float32; returns what they were, None for none."""
    found = set()
    for name in names:
        if tensors[name].dtype in HALVES:
            found.add(HALVES[tensors[name].dtype])
            tensors[name] = tensors[name].detach().float()
    return " and ".join(sorted(found)) or None
