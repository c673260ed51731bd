"""A plain state dict: `resnet50().load_state_dict(torch.load(file), strict=False)` misses `fc.*` and nothing else."""

from collections import OrderedDict
from pathlib import Path

import torch

from mocobench.runtime.errors import UserError
from transfer.backbone import Backbone
from transfer.metadata import KEY, metadata_json

SUMMARY = "state dict for torchvision's ResNets, without fc"
SUFFIX = ".pth"


def write(backbone: Backbone, path: Path) -> None:
    """Write the tensors under canonical names; the metadata is an attribute of the dictionary, as PyTorch's own is.

    Raises:
        UserError: the stride is in the 1x1 convolutions, where torchvision's ResNets do not have it.
    """
    if backbone.stride_in_1x1:
        raise UserError(
            f"{backbone.provenance.source}: expected the stride in the 3x3 convolutions, as torchvision has it, found "
            "it in the 1x1; convert to detectron2 or safetensors"
        )
    state = OrderedDict(backbone.tensors)
    vars(state)[KEY] = metadata_json(backbone)
    torch.save(state, path)
