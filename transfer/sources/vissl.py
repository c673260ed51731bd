"""VISSL's checkpoints: classy_state_dict: base_model: model: trunk: _feature_blocks.*; heads beside the trunk."""

from transfer.layout import Layout

SUMMARY = "checkpoint of VISSL"
LAYOUTS = (
    Layout(
        format="vissl",
        method=None,
        sections=("classy_state_dict/base_model/model/trunk",),
        encoders={"trunk": "_feature_blocks."},
    ),
)
