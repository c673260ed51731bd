"""A safetensors file for timm: `timm.create_model("resnet50", num_classes=0)` loads it strictly."""

from pathlib import Path

from transfer.backbone import Backbone
from transfer.metadata import KEY_FOR_OTHERS, safetensors_content
from transfer.refusals import refuse_small_stem, refuse_stride_in_1x1, refuse_width

SUMMARY = "safetensors for timm's ResNets, without fc"
SUFFIX = ".safetensors"


def write(backbone: Backbone, path: Path) -> None:
    """Write the tensors under timm's names, which are the canonical ones; the metadata goes to the header.

    Raises:
        UserError: the stride is in the 1x1 convolutions, the stem is 3x3 or everything is wider (`resnet50w2`), none of
            which timm's ResNets have.
    """
    refuse_stride_in_1x1(backbone, "timm")
    refuse_small_stem(backbone, "timm")
    refuse_width(backbone, "timm")
    path.write_bytes(safetensors_content(backbone.tensors, key=KEY_FOR_OTHERS, backbone=backbone))
