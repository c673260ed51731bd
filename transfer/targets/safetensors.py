"""The project's own format: canonical names in safetensors, everything else as metadata in its header."""

from pathlib import Path

from transfer.backbone import Backbone
from transfer.metadata import KEY, metadata_json

SUMMARY = "safetensors, with the input convention and provenance in the header"
SUFFIX = ".safetensors"


def write(backbone: Backbone, path: Path) -> None:
    """Write the tensors under canonical names."""
    from safetensors.torch import save

    tensors = {name: tensor.contiguous() for name, tensor in backbone.tensors.items()}
    # Not save_file(), which makes a file that nobody but its owner may read.
    path.write_bytes(save(tensors, metadata={"format": "pt", KEY: metadata_json(backbone)}))
