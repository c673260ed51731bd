"""A weight pickle that Detectron2 loads as it is: `MODEL.WEIGHTS file.pkl`.

The names and arrays are those that the MoCo authors' converter writes for the trunk. Detectron2 logs `__author__` when
it loads a file, so this is where the input convention goes: whoever loads the weights sees how to feed them.
"""

import pickle
from pathlib import Path

import mocobench
from transfer.arch import parse_arch
from transfer.backbone import Backbone
from transfer.detectron2_names import DETECTRON2_NAMES
from transfer.detectron2_trunk import run_by_detectron2
from transfer.metadata import KEY, metadata_json
from transfer.refusals import refuse_small_stem, refuse_width

SUMMARY = "weight pickle for Detectron2's MODEL.WEIGHTS"
SUFFIX = ".pkl"
run = run_by_detectron2
PICKLE_PROTOCOL = 4  # read by every Python that Detectron2 runs on


def write(backbone: Backbone, path: Path) -> None:
    """Write the trunk under Detectron2's names as float32 arrays, BN counters as int64.

    Raises:
        UserError: the stem is 3x3 or a ResNet-18 or 34 is wider, which Detectron2's do not have.
    """
    refuse_small_stem(backbone, "Detectron2")
    if not parse_arch(backbone.arch).has_bottlenecks:
        refuse_width(backbone, "Detectron2")
    content = {
        "model": {DETECTRON2_NAMES.theirs(name): tensor.numpy() for name, tensor in backbone.tensors.items()},
        "__author__": f"{KEY} {mocobench.__version__} {metadata_json(backbone)}",
        # Lets Detectron2 find places for names without the `backbone.` or `roi_heads.` of its models.
        "matching_heuristics": True,
    }
    with path.open("wb") as file:
        pickle.dump(content, file, protocol=PICKLE_PROTOCOL)
