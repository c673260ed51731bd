"""Checkpoints of PixPro's code: opt, optimizer, epoch, model: module.encoder.*, encoder_k.*, projector.*, ..."""

from transfer.layout import Layout

SUMMARY = "checkpoint or published weights of the PixPro authors"
LAYOUTS = (
    Layout(
        format="pixpro",
        method="PixPro",
        sections=("model",),
        encoders={"query": "encoder.", "key": "encoder_k."},
        dropped={
            "projector": "projection heads",
            "value_transform.": "pixel propagation",
        },
        marks=("encoder_k.",),
    ),
)
