"""MMSelfSup's, MMPretrain's and OpenSelfSup's checkpoints: meta, optimizer, state_dict: backbone.*, neck.*, head.*, ...

`backbone` is the network that is kept: the query or online encoder where there are two.
"""

from transfer.layout import LIGHTNING_KEY, Layout

SUMMARY = "checkpoint of MMSelfSup, MMPretrain or OpenSelfSup"
LAYOUTS = (
    Layout(
        format="openmmlab",
        method=None,
        sections=("state_dict",),
        encoders={"backbone": "backbone."},
        heads={},
        dropped={
            "neck.": "projection head",
            "head.": "head",
            "encoder_q.": "second name of the backbone and neck",
            "online_net.": "second name of the backbone and neck",
            "encoder_k.": "key encoder",
            "target_net.": "target encoder",
            "queue": "queue of keys",
            "memory_bank.": "memory bank",
            "data_preprocessor.": "input convention",
        },
        lacks=("backbone.fc.", "queue2"),
        not_beside=(LIGHTNING_KEY,),
    ),
)
