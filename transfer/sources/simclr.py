"""SimCLR in its common PyTorch forms: sthalles/SimCLR and Spijkervet/SimCLR; neither normalises pixels.

Conversions of the authors' own weights have torchvision's names, also 2 and 4 times as wide: the format `torchvision`,
to be read with --mean 0,0,0 --std 1,1,1.
"""

from transfer.backbone import UNIT_RGB
from transfer.layout import LIGHTNING_KEY, Layout

SUMMARY = "checkpoint of a common PyTorch form of SimCLR"
LAYOUTS = (
    # sthalles
    Layout(
        format="simclr",
        method="SimCLR",
        sections=("state_dict",),
        encoders={"backbone": "backbone."},
        heads={"fc.": "projection head"},
        marks=("backbone.fc.",),
        not_beside=(LIGHTNING_KEY,),
        input=UNIT_RGB,
    ),
    # Spijkervet
    Layout(
        format="simclr",
        method="SimCLR",
        sections=("",),
        encoders={"encoder": "encoder."},
        dropped={"projector.": "projection head"},
        marks=("projector.",),
        input=UNIT_RGB,
    ),
)
