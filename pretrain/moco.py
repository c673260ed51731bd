"""MoCo: a query encoder, a key encoder that follows it, and a queue of past keys.

Shapes: N images in the batch, n of them on this process (N = n in a single one), C the embedding's dimension,
K the queue's size, S the image size.
The state dict has the names of the authors' code: encoder_q.*, encoder_k.*, queue (C, K), queue_ptr (1,).
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import get_ema_multi_avg_fn

from mocobench.runtime.distributed import gather_tensors, own_part
from pretrain.encoder import normalise


class MoCo(nn.Module):
    """Momentum Contrast (arXiv 1911.05722, section 3 and Algorithm 1).

    `make_encoder` gives an encoder (N, 3, S, S) -> (N, C); the key encoder starts as a copy of the query encoder.
    With `symmetric` each view is the query once and the key once, as in the authors' CIFAR-10 demo.
    """

    queue: torch.Tensor
    queue_ptr: torch.Tensor

    def __init__(
        self,
        make_encoder: Callable[[], nn.Module],
        *,
        dim: int,
        queue_size: int,
        key_momentum: float,
        temperature: float,
        symmetric: bool = False,
    ) -> None:
        super().__init__()
        self.key_momentum, self.temperature, self.symmetric = key_momentum, temperature, symmetric
        self.encoder_q, self.encoder_k = make_encoder(), make_encoder()
        self.encoder_k.load_state_dict(self.encoder_q.state_dict())
        self.encoder_k.requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(dim, queue_size), dim=0))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

    def forward(
        self, queries: torch.Tensor, keys: torch.Tensor, shuffle: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (n, 1 + K) of the positive, then the queue's negatives, and the normalised queries (n, C).

        `queries` and `keys` are two views of this process's images, (n, 3, S, S). The target of every row is class 0.
        When symmetric there are 2n rows: `queries` against `keys`, then `keys` against `queries`.
        Updates the key encoder before the keys are made, and enqueues all processes' keys after the logits are.

        `shuffle` is a permutation of the N keys, the same on every process. It spreads them over other BN groups and
        processes than their queries are in: otherwise a query would know its key by the statistics they share
        (section 3.3, "Shuffling BN").
        """
        pairs = [(queries, keys), (keys, queries)] if self.symmetric else [(queries, keys)]
        q = torch.cat([normalise(self.encoder_q(views)) for views, _ in pairs])  # nxC
        self.update_key_encoder()
        k = [self.encode_keys(views, shuffle) for _, views in pairs]  # NxC each
        with torch.autocast(q.device.type, enabled=False):  # similarities in full precision
            positive = (q * torch.cat([own_part(part) for part in k])).sum(dim=1, keepdim=True)  # nx1
            negative = q @ self.queue.clone()  # nxK; a copy, because enqueueing changes the queue before backward
        self.enqueue(torch.cat(k))
        return torch.cat([positive, negative], dim=1) / self.temperature, q

    @torch.no_grad()
    def encode_keys(self, keys: torch.Tensor, shuffle: torch.Tensor) -> torch.Tensor:
        """Normalised keys of all processes, (N, C), of views (n, 3, S, S) that are shuffled while they are encoded."""
        shuffled = gather_tensors(keys)[own_part(shuffle)]  # nx3xSxS, of other images than the queries
        return gather_tensors(normalise(self.encoder_k(shuffled)))[shuffle.argsort()]  # in the order of the batch

    @torch.no_grad()
    def update_key_encoder(self) -> None:
        """key <- m * key + (1 - m) * query, for parameters; BN statistics of the key encoder are its own."""
        update = get_ema_multi_avg_fn(self.key_momentum)  # one kernel for many parameters, where the device has it
        update(list(self.encoder_k.parameters()), list(self.encoder_q.parameters()), 0)

    @torch.no_grad()
    def enqueue(self, keys: torch.Tensor) -> None:
        """Overwrite the oldest keys with `keys` (N, C), wrapping around; of more than K only the last K stay."""
        size = self.queue.shape[1]
        places = (self.queue_ptr + torch.arange(len(keys), device=keys.device)) % size
        self.queue[:, places[-size:]] = keys[-size:].T
        self.queue_ptr.add_(len(keys)).remainder_(size)


def contrastive_loss(logits: torch.Tensor) -> torch.Tensor:
    """InfoNCE: cross-entropy of logits (N, 1 + K) with the positive at 0 (arXiv 1911.05722, equation 1)."""
    targets = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    return F.cross_entropy(logits, targets)
