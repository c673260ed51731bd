"""A weight pickle that Detectron2 loads as it is: `MODEL.WEIGHTS file.pkl`.

The names and arrays are those that the MoCo authors' converter writes for the trunk. Detectron2 logs `__author__` when
it loads a file, so this is where the input convention goes: whoever loads the weights sees how to feed them.
"""

import pickle
from pathlib import Path

import mocobench
from transfer.backbone import Backbone
from transfer.detectron2_names import detectron2_name
from transfer.metadata import KEY, metadata_json

SUMMARY = "weight pickle for Detectron2's MODEL.WEIGHTS"
SUFFIX = ".pkl"
PICKLE_PROTOCOL = 4  # read by every Python that Detectron2 runs on


def write(backbone: Backbone, path: Path) -> None:
    """Write the trunk under Detectron2's names as float32 arrays, BN counters as int64."""
    content = {
        "model": {detectron2_name(name): tensor.numpy() for name, tensor in backbone.tensors.items()},
        "__author__": f"{KEY} {mocobench.__version__} {metadata_json(backbone)}",
        # Lets Detectron2 find places for names without the `backbone.` or `roi_heads.` of its models.
        "matching_heuristics": True,
    }
    with path.open("wb") as file:
        pickle.dump(content, file, protocol=PICKLE_PROTOCOL)
