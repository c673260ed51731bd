"""State dicts of torchvision's ResNets: bare, or under a `state_dict` or `model` key; and those this project writes.

Many projects publish their backbones so: Barlow Twins, VICReg, DINO, DenseCL, SimCLR's conversions, timm's older files.
"""

from pathlib import Path

from transfer.container import Content
from transfer.found import Found
from transfer.layout import Layout
from transfer.metadata import KEY, with_metadata

SUMMARY = "state dict of a torchvision ResNet, bare or under `state_dict` or `model`"
TESTED_WITH = "torchvision"
LAYOUTS = (
    Layout(
        format="torchvision",
        method=None,
        sections=("", "state_dict", "model"),
        encoders={"backbone": ""},
        heads={"fc.": "classifier"},
        lacks=("projection_head.",),
    ),
)


def finish(found: Found, content: Content, path: Path) -> Found:
    """What this project's target leaves on the dictionary itself, which torch.save keeps.

    Raises:
        UserError: the file's metadata is not what this project writes.
    """
    stated = getattr(content.values, KEY, None)
    return found if stated is None else with_metadata(found, stated, path)
