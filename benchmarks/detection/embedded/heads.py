"""The networks that look at one region: a vector for its box, its class and box from that, and its mask.

Letters: P regions of the whole batch, K classes; class K is background.
"""

from collections import OrderedDict

import torch
from torch import nn

from benchmarks.detection.embedded.layers import ConvNorm, at_least_float32, fill_msra, fill_normal, fill_xavier

CONV_CHANNELS = 256
FC_CHANNELS = 1024


class BoxPredictor(nn.Module):
    """Vectors (P, C) to logits (P, K + 1) and class-specific deltas (P, K, 4), never bfloat16."""

    def __init__(self, *, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(in_channels, num_classes + 1)
        self.bbox_pred = nn.Linear(in_channels, num_classes * 4)
        fill_normal(self.cls_score, std=0.01)
        fill_normal(self.bbox_pred, std=0.001)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return at_least_float32(self.cls_score(x)), at_least_float32(self.bbox_pred(x)).unflatten(1, (-1, 4))


def build_box_head(*, in_channels: int, size: int, num_convs: int, num_fcs: int, with_norm: bool) -> nn.Sequential:
    """Region features (P, C, size, size) to vectors (P, 1024).

    `num_convs` 3x3 convolutions of 256 channels, with norms or with biases, then `num_fcs` linear layers; a ReLU
    after each.
    """
    layers = _convs("conv", in_channels=in_channels, num_convs=num_convs, with_norm=with_norm)
    layers["flatten"] = nn.Flatten()
    in_features = (CONV_CHANNELS if num_convs else in_channels) * size * size
    for number in range(1, num_fcs + 1):
        linear = nn.Linear(in_features, FC_CHANNELS)
        fill_xavier(linear)
        layers[f"fc{number}"] = linear
        layers[f"fc{number}_relu"] = nn.ReLU(inplace=True)
        in_features = FC_CHANNELS
    return nn.Sequential(layers)


def build_mask_head(*, in_channels: int, num_classes: int, num_convs: int, with_norm: bool) -> nn.Sequential:
    """Region features (P, C, S, S) to mask logits (P, K, 2 S, 2 S).

    `num_convs` 3x3 convolutions of 256 channels, with norms or with biases, then a 2x2 deconvolution; a ReLU after
    each; and one map for every class.
    """
    layers = _convs("mask_fcn", in_channels=in_channels, num_convs=num_convs, with_norm=with_norm)
    deconv = nn.ConvTranspose2d(CONV_CHANNELS if num_convs else in_channels, CONV_CHANNELS, 2, stride=2)
    predictor = nn.Conv2d(CONV_CHANNELS, num_classes, 1)
    fill_msra(deconv)
    fill_normal(predictor, std=0.001)
    return nn.Sequential(OrderedDict(layers, deconv=deconv, deconv_relu=nn.ReLU(inplace=True), predictor=predictor))


def _convs(name: str, *, in_channels: int, num_convs: int, with_norm: bool) -> OrderedDict[str, nn.Module]:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number in range(1, num_convs + 1):
        conv = ConvNorm(in_channels, CONV_CHANNELS, kernel=3, with_norm=with_norm)
        fill_msra(conv)
        layers[f"{name}{number}"] = conv
        layers[f"{name}{number}_relu"] = nn.ReLU(inplace=True)
        in_channels = CONV_CHANNELS
    return layers
