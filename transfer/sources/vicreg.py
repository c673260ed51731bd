"""Checkpoints of VICReg's code: epoch, optimizer, model: module.backbone.*, module.projector.*

Its published `resnet50.pth` is the format `torchvision`. The padding of 1 before its first convolution, which pads
by 2, is the usual padding of 3.
"""

from transfer.layout import Layout

SUMMARY = "checkpoint of the VICReg authors' code"
LAYOUTS = (
    Layout(
        format="vicreg",
        method="VICReg",
        sections=("model",),
        encoders={"backbone": "backbone."},
        dropped={"projector.": "projection head"},
        marks=("projector.",),
        lacks=("bn.",),
    ),
)
