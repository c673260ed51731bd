"""The project's own format: canonical names in safetensors, everything else as metadata in its header."""

from pathlib import Path

from transfer.container import Content
from transfer.found import Found
from transfer.layout import Layout
from transfer.metadata import KEY, with_metadata

SUMMARY = "safetensors file that this project wrote"
TESTED_WITH = "mocobench convert"
LAYOUTS = (
    Layout(
        format="safetensors",
        method=None,
        sections=("",),
        encoders={"backbone": ""},
        heads={},
        containers=("safetensors",),
        beside=(KEY,),
    ),
)


def finish(found: Found, content: Content, path: Path) -> Found:
    """What the header says.

    Raises:
        UserError: the metadata is not what this project writes.
    """
    return with_metadata(found, content.header[KEY], path)
