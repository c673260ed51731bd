"""Checkpoints of Barlow Twins' code: epoch, optimizer, model: module.backbone.*, module.projector.*, module.bn.*

Its published `resnet50.pth` is the format `torchvision`.
"""

from transfer.layout import Layout

SUMMARY = "checkpoint of the Barlow Twins authors' code"
LAYOUTS = (
    Layout(
        format="barlow_twins",
        method="Barlow Twins",
        sections=("model",),
        encoders={"backbone": "backbone."},
        dropped={"projector.": "projection head", "bn.": "normalisation of embeddings"},
        marks=("projector.", "bn."),
    ),
)
