"""Layers that the backbone and the heads share, and Caffe2's two ways to draw a layer's weights."""

import torch
from torch import nn


class ConvNorm(nn.Conv2d):
    """A convolution that keeps the size at stride 1: followed by BatchNorm (`weight`, `norm.*`) or with a bias."""

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel: int, stride: int = 1, with_norm: bool = True
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=not with_norm)
        self.norm = nn.BatchNorm2d(out_channels) if with_norm else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = super().forward(x)
        return x if self.norm is None else self.norm(x)


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """What autocast made bfloat16 as float32; float64 stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


Layer = nn.Conv2d | nn.ConvTranspose2d | nn.Linear


def fill_xavier(layer: Layer) -> None:
    """Uniform weights whose variance is 1 / fan-in (Caffe2's XavierFill), biases 0."""
    nn.init.kaiming_uniform_(layer.weight, a=1)
    fill_bias(layer)


def fill_msra(layer: Layer) -> None:
    """Normal weights whose variance is 2 / fan-out (Caffe2's MSRAFill), biases 0."""
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    fill_bias(layer)


def fill_normal(layer: Layer, *, std: float) -> None:
    """Normal weights, biases 0."""
    nn.init.normal_(layer.weight, std=std)
    fill_bias(layer)


def fill_bias(layer: Layer) -> None:
    """Biases 0, if there are any."""
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
