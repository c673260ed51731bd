"""timm's ResNets as it publishes them: torchvision's names in safetensors. Its older `.pth` files are torchvision's."""

from pathlib import Path

from transfer.container import Content
from transfer.found import Found
from transfer.layout import Layout
from transfer.metadata import KEY, KEY_FOR_OTHERS, with_metadata

SUMMARY = "safetensors file of a timm ResNet"
TESTED_WITH = "timm"
LAYOUTS = (
    Layout(
        format="timm",
        method=None,
        sections=("",),
        encoders={"backbone": ""},
        heads={"fc.": "classifier"},
        containers=("safetensors",),
        not_beside=(KEY,),
    ),
)


def finish(found: Found, content: Content, path: Path) -> Found:
    """What this project's target leaves in the header; timm itself keeps the input convention in another file.

    Raises:
        UserError: the metadata is not what this project writes.
    """
    stated = content.header.get(KEY_FOR_OTHERS)
    return found if stated is None else with_metadata(found, stated, path)
