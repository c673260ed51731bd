"""LARS: SGD whose rate follows, layer by layer, how large the weights are beside their gradient.

You et al., arXiv 1708.03888, Algorithm 1, as the SimCLR authors' lars_optimizer.py has it: the rate is inside the
momentum, and biases and BN parameters are stepped by plain SGD without weight decay.
"""

from collections.abc import Iterable
from typing import Any

import torch

TRUST_COEFFICIENT = 0.001


class LARS(torch.optim.Optimizer):
    """velocity <- momentum * velocity + rate * trust * (gradient + decay * weight); weight <- weight - velocity.

    `trust` is 0.001 * |weight| / |gradient + decay * weight|, and 1 where either is zero. For parameters of one
    dimension, which are the biases and BN's, trust is 1 and decay is 0.
    """

    def __init__(
        self, parameters: Iterable[torch.nn.Parameter], *, lr: float, momentum: float, weight_decay: float
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        assert closure is None, "a step does not evaluate the loss again"
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, group["lr"], group["momentum"], group["weight_decay"])

    def _move(self, weight: torch.Tensor, rate: float, momentum: float, weight_decay: float) -> None:
        assert weight.grad is not None
        if weight.ndim <= 1:
            change = rate * weight.grad
        else:
            decayed = weight.grad + weight_decay * weight
            sizes = weight.norm(), decayed.norm()
            trust = torch.where((sizes[0] > 0) & (sizes[1] > 0), TRUST_COEFFICIENT * sizes[0] / sizes[1], 1.0)
            change = rate * trust * decayed
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        velocity = state["momentum_buffer"].mul_(momentum).add_(change)
        weight.sub_(velocity)
