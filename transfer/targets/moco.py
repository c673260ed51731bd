"""A checkpoint in the layout of the MoCo authors' code: its linear probe and its converter to Detectron2 read it."""

from pathlib import Path

from mocobench.runtime.files import save_tensors
from transfer.backbone import Backbone
from transfer.metadata import KEY, metadata_json
from transfer.refusals import refuse_small_stem, refuse_stride_in_1x1, refuse_width

SUMMARY = "checkpoint in the MoCo authors' layout, the query encoder alone"
SUFFIX = ".pth.tar"


def write(backbone: Backbone, path: Path) -> None:
    """Write the trunk as `module.encoder_q.*`, with `epoch` and `arch`; the metadata has a key of its own.

    Raises:
        UserError: the stride is in the 1x1 convolutions, the stem is 3x3 or everything is wider (`resnet50w2`), none of
            which the authors' networks have: they are torchvision's.
    """
    refuse_stride_in_1x1(backbone, "the MoCo authors' code")
    refuse_small_stem(backbone, "the MoCo authors' code")
    refuse_width(backbone, "the MoCo authors' code")
    content = {
        "epoch": backbone.provenance.epochs or 0,
        "arch": backbone.arch,
        "state_dict": {f"module.encoder_q.{name}": tensor for name, tensor in backbone.tensors.items()},
        KEY: {"metadata": metadata_json(backbone)},
    }
    save_tensors(content, path)
