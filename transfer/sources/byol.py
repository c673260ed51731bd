"""BYOL in its common PyTorch forms: yaox12/BYOL-PyTorch, sthalles/PyTorch-BYOL and lucidrains/byol-pytorch.

The first two cut torchvision's ResNet before its classifier into an nn.Sequential without names.
"""

from transfer.backbone import UNIT_RGB
from transfer.features import INDEXED
from transfer.layout import Layout
from transfer.names import INDEXED_NAMES

SUMMARY = "checkpoint of a common PyTorch form of BYOL"
LAYOUTS = (
    # yaox12
    Layout(
        format="byol",
        method="BYOL",
        sections=("model",),
        encoders={"online": "online_network.encoder.", "target": "target_network.encoder."},
        heads={},
        dropped={
            "online_network.projetion.": "projection head",
            "target_network.projetion.": "projection head",
            "predictor.": "prediction head",
        },
        names=INDEXED_NAMES,
        spelling=INDEXED,
    ),
    # sthalles, who does not normalise pixels
    Layout(
        format="byol",
        method="BYOL",
        sections=("online_network_state_dict",),
        encoders={
            "online": "online_network_state_dict:encoder.",
            "target": "target_network_state_dict:encoder.",
        },
        heads={},
        dropped={"projetion.": "projection head"},
        names=INDEXED_NAMES,
        spelling=INDEXED,
        input=UNIT_RGB,
    ),
    # lucidrains
    Layout(
        format="byol",
        method="BYOL",
        sections=("", "state_dict"),
        encoders={"online": "online_encoder.net.", "target": "target_encoder.net."},
        dropped={
            "online_encoder.projector.": "projection head",
            "target_encoder.projector.": "projection head",
            "online_predictor.": "prediction head",
            "net.": "second name of the online encoder",
        },
    ),
)
