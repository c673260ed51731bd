"""End-to-end: two encoders that both learn by gradient; the negatives are the other images of the batch.

It is what MoCo is compared with: Figure 2a of arXiv 1911.05722 and Table 3 of arXiv 2003.04297.
Shapes: N images in the batch, n of them on this process, C the embedding's dimension, S the image size.
"""

from collections.abc import Callable

import torch
from torch import nn

from mocobench.runtime.distributed import gather_tensors, gather_with_gradient, own_part
from pretrain.encoder import normalise


class EndToEnd(nn.Module):
    """Contrast in the batch (arXiv 1911.05722, section 3.2 "Relations to previous mechanisms").

    `make_encoder` gives an encoder (N, 3, S, S) -> (N, C); both start alike and differ once they have learnt.
    """

    def __init__(self, make_encoder: Callable[[], nn.Module], *, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.encoder_q, self.encoder_k = make_encoder(), make_encoder()
        self.encoder_k.load_state_dict(self.encoder_q.state_dict())

    def forward(
        self, queries: torch.Tensor, keys: torch.Tensor, shuffle: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (n, N) of the positive, then of the batch's N - 1 other keys, and the normalised queries (n, C).

        `queries` and `keys` are two views of this process's images, (n, 3, S, S). The keys are shuffled while they are
        encoded, as MoCo's are (section 3.3, "Shuffling BN"), and learn from the queries of every process.
        """
        q = normalise(self.encoder_q(queries))  # nxC
        shuffled = gather_tensors(keys)[own_part(shuffle)]  # nx3xSxS, of other images than the queries
        k = gather_with_gradient(normalise(self.encoder_k(shuffled)))[shuffle.argsort()]  # NxC, in the batch's order
        with torch.autocast(q.device.type, enabled=False):  # similarities in full precision
            similarities = q @ k.T  # nxN
        places = torch.arange(len(k), device=k.device)
        own = own_part(places)[:, None]  # nx1, where each query's key stands
        others = places[:-1] + (places[:-1] >= own)  # nx(N-1), all places but that one
        return similarities.gather(1, torch.cat([own, others], dim=1)) / self.temperature, q
