"""The project's own format: canonical names in safetensors, everything else as metadata in its header."""

from pathlib import Path

from transfer.container import Content
from transfer.features import TORCHVISION
from transfer.found import Found
from transfer.metadata import KEY, parse_metadata

SUMMARY = "safetensors file that this project wrote"


def claims(content: Content) -> bool:
    """The header has our metadata."""
    return content.container == "safetensors" and KEY in content.header


def read(content: Content, path: Path) -> Found:
    """Every tensor, under its canonical name already.

    Raises:
        UserError: the metadata is not what this project writes.
    """
    canonical = {name: name for name in content.values}
    return Found(content.values, TORCHVISION, canonical, {}, **vars(parse_metadata(content.header[KEY], path)))
