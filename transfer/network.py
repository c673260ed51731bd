"""The network that a Backbone describes, and the random baseline."""

import torch
from torch import nn
from torchvision import models

from mocobench.runtime.seeds import derive_seed
from transfer.backbone import IMAGENET_RGB, Backbone, Provenance, is_counter


def build_network(backbone: Backbone) -> nn.Module:
    """A torchvision ResNet with the backbone's weights and no classifier, in eval mode.

    Maps prepared images (N, 3, H, W) to pooled features (N, `backbone.feature_size`).
    """
    network = models.get_model(backbone.arch, weights=None)
    network.fc = nn.Identity()
    if backbone.stride_in_1x1:
        for block in network.modules():
            if isinstance(block, models.resnet.Bottleneck):
                block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    missing, unexpected = network.load_state_dict(backbone.tensors, strict=False)
    assert not unexpected, unexpected
    assert all(is_counter(name) for name in missing), missing
    return network.eval()


def random_backbone(arch: str, seed: int) -> Backbone:
    """A freshly initialised torchvision ResNet: the baseline that a pretrained backbone must beat."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "random-backbone"))
        network = models.get_model(arch, weights=None)
    tensors = {name: t.detach().clone() for name, t in network.state_dict().items() if not name.startswith("fc.")}
    provenance = Provenance(source="random", format="random", method="random", epochs=0, seed=seed)
    return Backbone(arch, tensors, IMAGENET_RGB, provenance)
