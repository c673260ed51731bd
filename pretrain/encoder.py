"""The encoder of every method: a torchvision ResNet that ends in a projection head.

Shapes: N images, C the embedding's dimension, S the image size.
"""

from functools import partial
from typing import cast

import torch
from torch import nn
from torch.nn import functional as F
from torchvision import models

from pretrain.batch_norm import GroupedBatchNorm2d


def make_encoder(
    arch: str, *, dim: int, mlp: bool, bn_groups: int, zero_init_residual: bool, stem: str = "7x7"
) -> nn.Module:
    """A torchvision ResNet whose classifier is the projection head (N, 3, S, S) -> (N, C).

    The head is linear (MoCo v1) or Linear-ReLU-Linear with the feature's own width between (MoCo v2, section 3). The
    stem is the canonical one, a 7x7 convolution of stride 2 and a pooling of stride 2, or for pictures of 32 pixels
    `3x3`, a convolution of stride 1 and no pooling.
    """
    norm = partial(GroupedBatchNorm2d, num_groups=bn_groups)
    encoder = models.get_model(
        arch, weights=None, num_classes=dim, norm_layer=norm, zero_init_residual=zero_init_residual
    )
    if mlp:
        width = encoder.fc.in_features
        encoder.fc = nn.Sequential(nn.Linear(width, width), nn.ReLU(), encoder.fc)
    if stem == "3x3":
        # Initialised as PyTorch does by itself, not as torchvision's ResNet: so does the authors' CIFAR-10 demo.
        encoder.conv1 = nn.Conv2d(3, encoder.conv1.out_channels, 3, padding=1, bias=False)
        encoder.maxpool = nn.Identity()
    else:
        assert stem == "7x7", stem
    return cast(nn.Module, encoder)


def normalise(embeddings: torch.Tensor) -> torch.Tensor:
    """Embeddings (N, C) of length 1, in float32 or more, whatever precision the encoder ran in."""
    return F.normalize(embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)), dim=1)
