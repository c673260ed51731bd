"""A plain state dict: `resnet50().load_state_dict(torch.load(file), strict=False)` misses `fc.*` and nothing else."""

from collections import OrderedDict
from pathlib import Path

from mocobench.runtime.files import save_tensors
from transfer.backbone import Backbone
from transfer.metadata import KEY, metadata_json
from transfer.refusals import refuse_small_stem, refuse_stride_in_1x1, refuse_width

SUMMARY = "state dict for torchvision's ResNets, without fc"
SUFFIX = ".pth"


def write(backbone: Backbone, path: Path) -> None:
    """Write the tensors under canonical names; the metadata is an attribute of the dictionary, as PyTorch's own is.

    Raises:
        UserError: the stride is in the 1x1 convolutions, the stem is 3x3 or everything is wider (`resnet50w2`), none of
            which torchvision's constructor can make.
    """
    refuse_stride_in_1x1(backbone, "torchvision")
    refuse_small_stem(backbone, "torchvision")
    refuse_width(backbone, "torchvision")
    state = OrderedDict(backbone.tensors)
    vars(state)[KEY] = metadata_json(backbone)
    save_tensors(state, path)
