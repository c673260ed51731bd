"""A safetensors file for Hugging Face: `model.safetensors` of a `ResNetModel`, whose `config.json` says the depth."""

from pathlib import Path

from transfer.backbone import Backbone
from transfer.huggingface_names import HUGGINGFACE_NAMES
from transfer.metadata import KEY_FOR_OTHERS, safetensors_content
from transfer.refusals import refuse_inner_width, refuse_small_stem, refuse_stride_in_1x1

SUMMARY = "safetensors for Hugging Face's ResNetModel"
SUFFIX = ".safetensors"


def write(backbone: Backbone, path: Path) -> None:
    """Write the tensors under the names of `ResNetModel`; the metadata goes to the header.

    Raises:
        UserError: the stride is in the 1x1 convolutions, where `ResNetConfig` does not have it by default, or the stem
            is 3x3 or the 3x3 convolutions alone are wider (`wide_resnet50_2`), which it never has. It has a size for
            each stage, and so `resnet50w2`.
    """
    refuse_stride_in_1x1(backbone, "ResNetModel")
    refuse_small_stem(backbone, "ResNetModel")
    refuse_inner_width(backbone, "ResNetModel")
    tensors = {HUGGINGFACE_NAMES.theirs(name): tensor for name, tensor in backbone.tensors.items()}
    path.write_bytes(safetensors_content(tensors, key=KEY_FOR_OTHERS, backbone=backbone))
