"""The network that a Backbone describes, and the random baseline."""

from contextlib import nullcontext

import torch
from torch import nn
from torchvision.models.resnet import Bottleneck

from mocobench.runtime.seeds import derive_seed
from transfer.arch import make_resnet, parse_arch
from transfer.backbone import IMAGENET_RGB, Backbone, Provenance, is_counter


def build_network(backbone: Backbone, *, shares_weights: bool = False) -> nn.Module:
    """A torchvision ResNet with the backbone's weights and no classifier, in eval mode.

    With `shares_weights` they are the backbone's own tensors, which saves their memory; to train it would change them.
    Maps prepared images (N, 3, H, W) to pooled features (N, `backbone.feature_size`).
    """
    with torch.device("meta") if shares_weights else nullcontext():
        network = make_resnet(parse_arch(backbone.arch))
    if backbone.stride_in_1x1:
        for block in network.modules():
            if isinstance(block, Bottleneck):
                block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    missing, unexpected = network.load_state_dict(backbone.tensors, strict=False, assign=shares_weights)
    assert not unexpected, unexpected
    assert all(is_counter(name) for name in missing), missing
    return network.eval()


def random_backbone(arch: str, seed: int) -> Backbone:
    """A freshly initialised torchvision ResNet: the baseline that a pretrained backbone must beat."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "random-backbone"))
        network = make_resnet(parse_arch(arch))
    tensors = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    provenance = Provenance(source="random", format="random", method="random", epochs=0, seed=seed)
    return Backbone(arch, tensors, IMAGENET_RGB, provenance)
