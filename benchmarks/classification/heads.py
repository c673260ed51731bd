"""Linear heads: classifiers on the same features, each with its own learning rate and weight decay, trained together.

N: images, H: heads, K: classes, C: channels of a feature. No head sees another, so each learns what it would alone.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.classification.data import Batch
from mocobench.runtime.seeds import torch_generator

LARS_TRUST, LARS_EPSILON = 0.001, 1e-8  # SimSiam's main_lincls.py and the LARC of apex, which it uses
EVALUATION_LOGITS = 2**22  # at most so many at a time


@dataclass(frozen=True)
class Solver:
    """How heads learn: learning rates and weight decays, one for each of H heads, on weights and biases alike.

    `sgd` and `nesterov` are PyTorch's; `lars` scales each head's gradient, of its weight and of its bias, by
    0.001 * |parameter| / |gradient| before the momentum, unless one of the two is zero.
    """

    learning_rates: tuple[float, ...]
    weight_decays: tuple[float, ...]
    momentum: float
    optimizer: str


def make_classifier(feature_size: int, num_classes: int, *, init_std: float, seed: int) -> nn.Linear:
    """A linear classifier with weights ~ N(0, init_std) and bias 0."""
    classifier = nn.utils.skip_init(nn.Linear, feature_size, num_classes)
    with torch.no_grad():
        classifier.weight.normal_(0.0, init_std, generator=torch_generator(seed, "classifier"))
        classifier.bias.zero_()
    return classifier


class LinearHeads:
    """H classifiers that start as copies of one. `weight` (H, K, C) and `bias` (H, K, 1) are theirs."""

    def __init__(self, classifier: nn.Linear, solver: Solver, *, device: torch.device) -> None:
        num_heads = len(solver.learning_rates)
        self.solver = solver
        start = (classifier.weight.detach(), classifier.bias.detach()[:, None])
        self.weight, self.bias = (
            tensor.to(device).expand(num_heads, *tensor.shape).clone().requires_grad_() for tensor in start
        )
        self._speeds = [torch.zeros_like(parameter) for parameter in self.parameters]
        self._rates = torch.tensor(solver.learning_rates, device=device).view(-1, 1, 1)
        self._decays = torch.tensor(solver.weight_decays, device=device).view(-1, 1, 1)

    @property
    def parameters(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.weight, self.bias

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Of features (N, C): (N, H, K)."""
        num_heads, num_classes, _ = self.weight.shape
        flat = F.linear(features, self.weight.flatten(0, 1), self.bias.flatten())
        return flat.view(-1, num_heads, num_classes)

    def step(self, features: torch.Tensor, labels: torch.Tensor, *, rate_factor: float) -> torch.Tensor:
        """One step on features (N, C), labels (N,); returns each head's mean cross-entropy (H,) before it."""
        logits = self.logits(features)
        targets = labels.repeat_interleave(logits.shape[1])
        losses = F.cross_entropy(logits.flatten(0, 1), targets, reduction="none").view(len(labels), -1).mean(dim=0)
        # The gradient of the sum is, head by head, that of the head's own loss, even beside one that is not finite.
        gradients = torch.autograd.grad(losses.sum(), self.parameters)
        for parameter, gradient, speed in zip(self.parameters, gradients, self._speeds, strict=True):
            self._move(parameter, gradient, speed, rate_factor)
        return losses.detach()

    @torch.no_grad()
    def _move(self, parameter: torch.Tensor, gradient: torch.Tensor, speed: torch.Tensor, rate_factor: float) -> None:
        momentum = self.solver.momentum
        if self.solver.optimizer == "lars":
            gradient = self._scaled(parameter, gradient)
        elif any(self.solver.weight_decays):
            gradient = gradient + self._decays * parameter
        speed.mul_(momentum).add_(gradient)
        change = gradient + momentum * speed if self.solver.optimizer == "nesterov" else speed
        parameter.sub_(self._rates * rate_factor * change)

    def _scaled(self, parameter: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        size, gradient_size = (tensor.norm(dim=(1, 2), keepdim=True) for tensor in (parameter, gradient))  # Hx1x1
        trust = LARS_TRUST * size / (gradient_size + size * self._decays + LARS_EPSILON)
        scaled = trust * (gradient + self._decays * parameter)
        return torch.where((size > 0) & (gradient_size > 0), scaled, gradient)

    @torch.no_grad()
    def best_classes(self, features: torch.Tensor, *, k: int) -> torch.Tensor:
        """The best, second best, ... k-th best class of features (N, C): (N, H, k), on the CPU."""
        num_heads, num_classes, _ = self.weight.shape
        block = max(1, EVALUATION_LOGITS // (num_heads * num_classes))
        parts = features.split(block)
        return torch.cat([self.logits(part.to(self.weight.device)).topk(k, dim=2).indices.cpu() for part in parts])

    def hits(self, labelled: Batch, *, k: int) -> torch.Tensor:
        """Whether the label is the best, second best, ... k-th best class: bool (N, H, k), on the CPU."""
        features, labels = labelled
        return self.best_classes(features, k=k) == labels[:, None, None]

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, for `restore`."""
        return {"parameters": [parameter.detach() for parameter in self.parameters], "speeds": self._speeds}

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        for name, tensors in (("parameters", self.parameters), ("speeds", self._speeds)):
            for tensor, value in zip(tensors, state[name], strict=True):
                tensor.copy_(value)


def topk_accuracies(heads: LinearHeads, labelled: Batch) -> dict[str, torch.Tensor]:
    """Top-1 and top-5 accuracy in percent of each head (H,); with fewer than five classes top-5 counts them all."""
    hits = heads.hits(labelled, k=min(5, heads.weight.shape[1]))
    found = {"top1": hits[:, :, 0].sum(dim=0), "top5": hits.any(dim=2).sum(dim=0)}
    return {name: 100 * count.double() / len(hits) for name, count in found.items()}


def accuracy_by_class(
    correct: torch.Tensor, labels: torch.Tensor, classes: tuple[str, ...]
) -> dict[str, dict[str, float]]:
    """Top-1 accuracy in percent and number of images of each class that has any; both (N,)."""
    images = labels.bincount(minlength=len(classes)).tolist()
    found = labels[correct].bincount(minlength=len(classes)).tolist()
    return {
        name: {"top1": 100 * right / count, "images": count}
        for name, right, count in zip(classes, found, images, strict=True)
        if count
    }
