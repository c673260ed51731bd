"""Checkpoints of MoCo v3's code with a ResNet.

epoch, arch, optimizer, scaler
state_dict: module.base_encoder.*, module.momentum_encoder.*, both with a projection head at `fc`; module.predictor.*
"""

from transfer.layout import Layout

SUMMARY = "checkpoint of the MoCo v3 authors' code, with a ResNet"
LAYOUTS = (
    Layout(
        format="moco_v3",
        method="MoCo v3",
        sections=("state_dict",),
        encoders={"base": "base_encoder.", "momentum": "momentum_encoder."},
        heads={"fc.": "projection head"},
        dropped={"predictor.": "prediction head"},
    ),
)
