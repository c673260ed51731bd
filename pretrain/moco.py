"""MoCo: a query encoder, a key encoder that follows it, and a queue of past keys.

Shapes: N images in the batch, n of them on this process (N = n in a single one), C the embedding's dimension,
K the queue's size, S the image size.
The state dict has the names of the authors' code: encoder_q.*, encoder_k.*, queue (C, K), queue_ptr (1,).
"""

from functools import partial
from typing import cast

import torch
from torch import nn
from torch.nn import functional as F
from torchvision import models

from mocobench.runtime.distributed import gather_tensors, own_part
from pretrain.batch_norm import GroupedBatchNorm2d


def make_encoder(arch: str, *, dim: int, mlp: bool, bn_groups: int, zero_init_residual: bool) -> nn.Module:
    """A torchvision ResNet whose classifier is the projection head (N, 3, S, S) -> (N, C).

    The head is linear (v1) or Linear-ReLU-Linear with the feature's own width between (v2, section 3).
    """
    norm = partial(GroupedBatchNorm2d, num_groups=bn_groups)
    encoder = models.get_model(
        arch, weights=None, num_classes=dim, norm_layer=norm, zero_init_residual=zero_init_residual
    )
    if mlp:
        width = encoder.fc.in_features
        encoder.fc = nn.Sequential(nn.Linear(width, width), nn.ReLU(), encoder.fc)
    return cast(nn.Module, encoder)


class MoCo(nn.Module):
    """Momentum Contrast (arXiv 1911.05722, section 3 and Algorithm 1)."""

    queue: torch.Tensor
    queue_ptr: torch.Tensor

    def __init__(
        self,
        *,
        arch: str,
        mlp: bool,
        dim: int,
        queue_size: int,
        key_momentum: float,
        temperature: float,
        bn_groups: int = 1,
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        self.key_momentum, self.temperature = key_momentum, temperature
        self.encoder_q, self.encoder_k = (
            make_encoder(arch, dim=dim, mlp=mlp, bn_groups=bn_groups, zero_init_residual=zero_init_residual)
            for _ in range(2)
        )
        self.encoder_k.load_state_dict(self.encoder_q.state_dict())
        self.encoder_k.requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(dim, queue_size), dim=0))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

    def forward(
        self, queries: torch.Tensor, keys: torch.Tensor, shuffle: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (n, 1 + K) of the positive, then the queue's negatives, and the normalised queries (n, C).

        `queries` and `keys` are two views of this process's images, (n, 3, S, S). The target of every row is class 0.
        Updates the key encoder before the keys are made, and enqueues all processes' keys after the logits are.

        `shuffle` is a permutation of the N keys, the same on every process. It spreads them over other BN groups and
        processes than their queries are in: otherwise a query would know its key by the statistics they share
        (section 3.3, "Shuffling BN").
        """
        q = self.normalise(self.encoder_q(queries))  # nxC
        with torch.no_grad():
            self.update_key_encoder()
            shuffled = gather_tensors(keys)[own_part(shuffle)]  # nx3xSxS, of other images than the queries
            k = gather_tensors(self.normalise(self.encoder_k(shuffled)))  # NxC, shuffled
            k = k[shuffle.argsort()]  # NxC, in the order of the batch
        with torch.autocast(q.device.type, enabled=False):  # similarities in full precision
            positive = (q * own_part(k)).sum(dim=1, keepdim=True)  # nx1
            negative = q @ self.queue.clone()  # nxK; a copy, because enqueueing changes the queue before backward
        self.enqueue(k)
        return torch.cat([positive, negative], dim=1) / self.temperature, q

    def normalise(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Embeddings (N, C) of length 1 in the queue's type, whatever precision the encoder ran in."""
        return F.normalize(embeddings.to(self.queue.dtype), dim=1)

    @torch.no_grad()
    def update_key_encoder(self) -> None:
        """key <- m * key + (1 - m) * query, for parameters; BN statistics of the key encoder are its own."""
        for query, key in zip(self.encoder_q.parameters(), self.encoder_k.parameters(), strict=True):
            key.mul_(self.key_momentum).add_(query, alpha=1 - self.key_momentum)

    @torch.no_grad()
    def enqueue(self, keys: torch.Tensor) -> None:
        """Overwrite the oldest keys with `keys` (N, C), wrapping around; of more than K only the last K stay."""
        size = self.queue.shape[1]
        pointer = int(self.queue_ptr)
        places = torch.arange(pointer, pointer + len(keys), device=keys.device) % size
        self.queue[:, places[-size:]] = keys[-size:].T
        self.queue_ptr[0] = (pointer + len(keys)) % size


def contrastive_loss(logits: torch.Tensor) -> torch.Tensor:
    """InfoNCE: cross-entropy of logits (N, 1 + K) with the positive at 0 (arXiv 1911.05722, equation 1)."""
    targets = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    return F.cross_entropy(logits, targets)
