"""What a weights file that this project writes says about itself: one line of JSON that travels with the tensors."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mocobench.runtime.errors import UserError
from transfer.arch import parse_arch
from transfer.backbone import Backbone, InputSpec, Provenance
from transfer.found import Found

KEY = "mocobench"
# The same in the header of a safetensors file that is for another tool, under that tool's names.
KEY_FOR_OTHERS = "mocobench.metadata"


@dataclass(frozen=True)
class Metadata:
    """Everything of a Backbone but its tensors, and the digest that they must have, as fields of `Found`."""

    input: InputSpec
    provenance: Provenance
    stride_in_1x1: bool
    declared_arch: str
    declared_digest: str
    small_stem: str


def metadata_json(backbone: Backbone) -> str:
    """The metadata as compact JSON on one line."""
    record = {
        "arch": backbone.arch,
        "input": backbone.input.to_dict(),
        "stride_in_1x1": backbone.stride_in_1x1,
        "digest": backbone.digest,
        "provenance": backbone.provenance.to_dict(),
    }
    return json.dumps(record, separators=(",", ":"), allow_nan=False)


def safetensors_content(tensors: dict[str, torch.Tensor], *, key: str, backbone: Backbone) -> bytes:
    """A safetensors file with the metadata under `key` of its header, which is sorted: the library's order changes."""
    from safetensors.torch import save

    # Not save_file(), which makes a file that nobody but its owner may read.
    content = save(tensors, metadata={"format": "pt", key: metadata_json(backbone)})
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[end:]


def parse_metadata(text: str, path: Path) -> Metadata:
    """Read what `metadata_json` wrote.

    Raises:
        UserError: it is not JSON, or lacks a value.
    """
    try:
        record = json.loads(text)
        return Metadata(
            input=InputSpec.from_dict(record["input"]),
            provenance=Provenance.from_dict(record["provenance"]),
            stride_in_1x1=bool(record["stride_in_1x1"]),
            declared_arch=str(record["arch"]),
            declared_digest=str(record["digest"]),
            small_stem=parse_arch(str(record["arch"])).stem_name,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: expected the metadata that mocobench writes, found {type(error).__name__} {error}; "
            "convert the original checkpoint again"
        ) from error


def with_metadata(found: Found, text: str, path: Path) -> Found:
    """What was found, with what the file says of itself in the place of what its format lets one assume.

    Raises:
        UserError: as for `parse_metadata`.
    """
    return replace(found, **vars(parse_metadata(text, path)))
