"""Checkpoints of SimSiam's code: epoch, arch, optimizer, state_dict: module.encoder.*, module.predictor.*"""

from transfer.layout import LIGHTNING_KEY, Layout

SUMMARY = "checkpoint of the SimSiam authors' code"
LAYOUTS = (
    Layout(
        format="simsiam",
        method="SimSiam",
        sections=("state_dict",),
        encoders={"encoder": "encoder."},
        heads={"fc.": "projection head"},
        dropped={"predictor.": "prediction head"},
        marks=("predictor.",),
        not_beside=(LIGHTNING_KEY,),
    ),
)
