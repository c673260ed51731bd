"""Weights into a Detectron2 model through its own loader, compared afterwards: a backbone to start, or a detector."""

from pathlib import Path
from typing import Any

import torch

from benchmarks.detection.embedded_model import build_model, load_detector
from benchmarks.detection.protocol import DetectionProtocol
from mocobench.runtime.errors import UserError
from transfer.backbone import Backbone
from transfer.detectron2_names import detectron2_name
from transfer.targets.detectron2 import write


def load_start(
    model: Any, checkpointer: Any, backbone: Backbone, protocol: DetectionProtocol, *, file: Path, seed: int
) -> None:
    """Give a Detectron2 model the weights with which the embedded engine starts from this backbone and seed.

    The backbone is written to `file` as Detectron2's pickle and loaded by its DetectionCheckpointer; all other
    tensors are those of the embedded model, whose names and shapes are Detectron2's.

    Raises:
        UserError: a tensor of the file found no place in the model, or its place holds other values.
    """
    write(backbone, file)
    checkpointer.load(str(file), checkpointables=[])
    compare_with_file(model.state_dict(), backbone, file=file)
    num_classes = model.roi_heads.num_classes
    start = build_model(backbone, protocol, num_classes=num_classes, seed=seed).state_dict()
    model.load_state_dict(start, strict=True)


def load_trained(model: Any, backbone: Backbone, protocol: DetectionProtocol, *, file: Path) -> None:
    """Give a Detectron2 model the weights of a trained detector of either engine.

    Raises:
        UserError: as `embedded_model.load_detector`, or Detectron2 read other values than are in the file.
    """
    from detectron2.checkpoint import DetectionCheckpointer

    # Read by our own strict reader first, which also sees to it that the file holds nothing but arrays.
    expected = build_model(backbone, protocol, num_classes=model.roi_heads.num_classes, seed=0)
    load_detector(expected, file)
    DetectionCheckpointer(model).load(str(file), checkpointables=[])
    found = model.state_dict()
    others = [name for name, tensor in expected.state_dict().items() if not torch.equal(found[name].cpu(), tensor)]
    if others:
        raise UserError(
            f"{file}: expected Detectron2 to load what the file holds, found other values in {others[0]} "
            f"({len(others)} such); use a Detectron2 of version 0.6 or --engine embedded"
        )


def compare_with_file(state: dict[str, torch.Tensor], backbone: Backbone, *, file: Path) -> None:
    """Check that each tensor of a backbone stands at exactly one place of a model: Detectron2 itself only warns.

    Raises:
        UserError: those that do not are listed.
    """
    faults = []
    for canonical, tensor in backbone.tensors.items():
        name = detectron2_name(canonical)
        places = [place for place in state if place.endswith(f".{name}")]
        if len(places) != 1:
            faults.append(f"{name} has {len(places)} places")
        elif not torch.equal(state[places[0]].cpu(), tensor):
            faults.append(f"{places[0]} holds other values")
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise UserError(
            f"{file}: expected Detectron2 to load all {len(backbone.tensors)} tensors, found that "
            f"{'; '.join(faults[:3])}{more}; use a Detectron2 of version 0.6 or --engine embedded"
        )
