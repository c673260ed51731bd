"""The project's own format: canonical names in safetensors, everything else as metadata in its header."""

from pathlib import Path

from transfer.backbone import Backbone
from transfer.metadata import KEY, safetensors_content

SUMMARY = "safetensors, with the input convention and provenance in the header"
SUFFIX = ".safetensors"


def write(backbone: Backbone, path: Path) -> None:
    """Write the tensors under canonical names."""
    tensors = {name: tensor.contiguous() for name, tensor in backbone.tensors.items()}
    path.write_bytes(safetensors_content(tensors, key=KEY, backbone=backbone))
