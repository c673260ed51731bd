"""Checkpoints of PyContrast (InsDis, MoCo, PIRL, InfoMin): epoch, optimizer, model: module.encoder.*, module.head.*

`contrast` and `model_ema` stand beside them; SupContrast, by the same author, is the format `supcontrast`.
"""

from transfer.layout import Layout

SUMMARY = "checkpoint of PyContrast, with one encoder (InfoMin, MoCo, PIRL, InsDis)"
LAYOUTS = (
    Layout(
        format="pycontrast",
        method="PyContrast",
        sections=("model",),
        encoders={"model": "model:encoder.", "ema": "model_ema:encoder."},
        dropped={"head.": "projection head", "head_jig.": "projection head of jigsaws"},
        marks=("head.",),
        lacks=("encoder_k.", "encoder.layer2.0.shortcut."),
    ),
)
