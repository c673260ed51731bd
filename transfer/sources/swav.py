"""SwAV's checkpoints and published weights: a ResNet (also 2, 4, 5 times as wide) with two more layers of its own.

state_dict or the file itself: module.conv1.weight, ..., module.projection_head.*, module.prototypes.*
"""

from transfer.backbone import InputSpec
from transfer.layout import Layout

SUMMARY = "checkpoint or published weights of the SwAV authors"
LAYOUTS = (
    Layout(
        format="swav",
        method="SwAV",
        sections=("state_dict", ""),
        encoders={"backbone": ""},
        heads={},
        dropped={"projection_head.": "projection head", "prototypes.": "prototypes"},
        marks=("projection_head.",),
        input=InputSpec((0.485, 0.456, 0.406), (0.228, 0.224, 0.225)),  # src/multicropdataset.py: 0.228,
    ),
)
