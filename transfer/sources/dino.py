"""DINO's full checkpoints with a ResNet-50.

teacher: backbone.*, head.*; student: module.backbone.*, module.head.*; optimizer, epoch, args, dino_loss
"""

from transfer.layout import Layout

SUMMARY = "full checkpoint of the DINO authors' code, with a ResNet"
LAYOUTS = (
    Layout(
        format="dino",
        method="DINO",
        sections=("teacher",),
        encoders={"teacher": "teacher:backbone.", "student": "student:backbone."},
        dropped={"head.": "projection head"},
    ),
)
