"""DenseCL, by its authors' code (on OpenSelfSup) and by MMSelfSup 1.x; both have a second queue.

Published backbones are the format `torchvision`.
"""

from transfer.layout import Layout

SUMMARY = "checkpoint of DenseCL, by its authors' code or by MMSelfSup"
LAYOUTS = (
    Layout(
        format="densecl",
        method="DenseCL",
        sections=("state_dict",),
        encoders={"query": "encoder_q.0.", "key": "encoder_k.0."},
        heads={},
        dropped={
            "encoder_q.1.": "projection heads",
            "encoder_k.1.": "projection heads",
            "queue2": "queue of dense keys",
            "queue": "queue of keys",
            "backbone.": "second name of the query encoder",
            "neck.": "projection heads",
            "head.": "loss",
        },
        marks=("queue2",),
    ),
    Layout(
        format="densecl",
        method="DenseCL",
        sections=("state_dict",),
        encoders={"query": "backbone.", "key": "encoder_k.0."},
        heads={},
        dropped={
            "encoder_k.": "projection heads",
            "queue2": "queue of dense keys",
            "queue": "queue of keys",
            "neck.": "projection heads",
            "head.": "loss",
            "data_preprocessor.": "input convention",
        },
        marks=("queue2",),
        lacks=("encoder_q.",),
    ),
)
