"""SimCLR: one encoder, and each view has to be told from all others of the batch.

Chen et al., arXiv 2002.05709. Shapes: N images in the batch, n of them on this process, C the embedding's dimension,
S the image size.
"""

import torch
from torch import nn

from mocobench.runtime.distributed import gather_with_gradient, own_part
from pretrain.batch_norm import GroupedBatchNorm1d
from pretrain.encoder import normalise


class SimCLR(nn.Module):
    """Both views of every image through one encoder (N, 3, S, S) -> (N, C), contrasted by NT-Xent (section 2.1)."""

    def __init__(self, encoder: nn.Module, *, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.encoder_q = encoder

    def forward(
        self, queries: torch.Tensor, keys: torch.Tensor, shuffle: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (2n, 2N - 1) of the positive, then of all views of other images, and the embeddings (2n, C).

        `queries` and `keys` are two views of this process's images, (n, 3, S, S); the rows are those of the first
        image's two views, then of the second's, ... Nothing is shuffled: BN over the whole batch tells nothing about
        who belongs to whom (section 2.2, "Global BN"), as long as there is one BN group.
        """
        del shuffle
        # The two views of an image stand together, so that every process and BN group has both of its images.
        views = torch.stack([queries, keys], dim=1).flatten(0, 1)  # 2nx3xSxS
        own = normalise(self.encoder_q(views))  # 2nxC
        together = gather_with_gradient(own)  # 2NxC
        with torch.autocast(own.device.type, enabled=False):  # similarities in full precision
            similarities = own @ together.T  # 2nx2N
        places = torch.arange(len(together), device=own.device)
        place = own_part(places)[:, None]  # 2nx1, where each of this process's views stands
        pair = place - place % 2  # the place of the image's first view
        others = places[:-2] + 2 * (places[:-2] >= pair)  # 2nx(2N-2), all places but the image's own two
        return similarities.gather(1, torch.cat([place ^ 1, others], dim=1)) / self.temperature, own


def make_projection_head(width: int, dim: int, *, bn_groups: int) -> nn.Module:
    """(N, width) -> (N, dim): one hidden layer, with BN after both as in the authors' code (model_util.py).

    The paper writes W2 relu(W1 h) (section 2.1); the code has BN in place of the biases, the last one without an
    offset.
    """
    last = GroupedBatchNorm1d(dim, num_groups=bn_groups)
    last.bias.requires_grad_(False)
    return nn.Sequential(
        nn.Linear(width, width, bias=False),
        GroupedBatchNorm1d(width, num_groups=bn_groups),
        nn.ReLU(),
        nn.Linear(width, dim, bias=False),
        last,
    )
