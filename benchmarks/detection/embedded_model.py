"""The embedded detector of a protocol: its model, with a backbone's or a whole detector's weights in their places."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.detection.embedded.fpn import FPN
from benchmarks.detection.embedded.rcnn import RCNN, build_r50_c4, build_r50_fpn
from benchmarks.detection.embedded.regions import RegionSettings
from benchmarks.detection.embedded.rpn import ProposalSettings
from benchmarks.detection.protocol import DetectionProtocol
from mocobench.runtime.errors import UserError
from mocobench.runtime.seeds import derive_seed
from transfer.backbone import Backbone, is_counter
from transfer.container import open_checkpoint
from transfer.detectron2_names import detectron2_name

# Convolutions and linear layers of a box head on FPN.
FPN_BOX_HEADS = {"2fc": (0, 2), "4conv1fc": (4, 1)}
# What tells the depth of a ResNet of bottlenecks: the blocks in res4 (He et al., arXiv 1512.03385, table 1).
DEPTH_BY_BLOCKS = {6: 50, 23: 101, 36: 152}
CLASS_ROWS = "roi_heads.box_predictor.cls_score.weight"
# Older Detectron2 files hold these beside the weights. They are set by the model and by the input convention.
CONSTANTS = ("pixel_mean", "pixel_std", "proposal_generator.anchor_generator.")
NUM_LISTED = 3


def build_model(backbone: Backbone, protocol: DetectionProtocol, *, num_classes: int, seed: int) -> RCNN:
    """The protocol's detector with the backbone's weights and all others drawn from the seed, on the CPU.

    Raises:
        UserError: the backbone is not a ResNet-50.
    """
    require_resnet50(backbone, protocol)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "detection-heads"))
        model = _build(protocol, num_classes=num_classes, stride_in_1x1=backbone.stride_in_1x1)
    load_backbone_weights(model, backbone)
    return model


def require_resnet50(backbone: Backbone, protocol: DetectionProtocol) -> None:
    """Refuse any other network.

    Raises:
        UserError: it is one.
    """
    if backbone.arch != "resnet50":
        raise UserError(
            f"{backbone.provenance.source}: expected a resnet50 for {protocol.model}, found a {backbone.arch}"
        )


def _build(protocol: DetectionProtocol, *, num_classes: int, stride_in_1x1: bool) -> RCNN:
    settings: dict[str, Any] = {
        "masks": protocol.masks,
        "stride_in_1x1": stride_in_1x1,
        "proposals": ProposalSettings(
            anchors_per_image=protocol.rpn_anchors_per_image,
            pre_nms_train=protocol.rpn_pre_nms_train,
            post_nms_train=protocol.rpn_post_nms_train,
            pre_nms_test=protocol.rpn_pre_nms_test,
            post_nms_test=protocol.rpn_post_nms_test,
        ),
        "regions": RegionSettings(
            num_classes=num_classes,
            rois_per_image=protocol.rois_per_image,
            score_threshold=protocol.score_threshold,
            nms_threshold=protocol.nms_threshold,
            detections_per_image=protocol.detections_per_image,
        ),
    }
    if protocol.model == "R50-C4":
        return build_r50_c4(extra_norm=protocol.extra_norm, **settings)
    num_convs, num_fcs = FPN_BOX_HEADS[protocol.box_head]
    return build_r50_fpn(
        box_head_convs=num_convs, box_head_fcs=num_fcs, norm_in_heads=protocol.norm_in_heads, **settings
    )


def load_backbone_weights(model: RCNN, backbone: Backbone) -> None:
    """Copy every tensor of the backbone to its place: with C4 res5 is in the heads, with FPN all of it under it."""
    trunk, res5 = "backbone.", "roi_heads."
    if isinstance(model.backbone, FPN):
        trunk = res5 = "backbone.bottom_up."
    translated = {}
    for name, tensor in backbone.tensors.items():
        place = detectron2_name(name)
        translated[(res5 if place.startswith("res5.") else trunk) + place] = tensor
    expected = {
        name
        for name in model.state_dict()
        if name.startswith((trunk, res5 + "res5.")) and not name.startswith(res5 + "res5.norm.")
    }
    assert {name for name in expected if not is_counter(name)} <= translated.keys() <= expected
    model.load_state_dict(translated, strict=False)


def load_detector(model: RCNN, path: Path) -> None:
    """Give `model` the weights of a whole detector: `{"model": {name: tensor or array}}`, ours or Detectron2's.

    BatchNorm's counters of batches, which nothing reads, may be absent, and constants may be there; all else must
    match. How pixels are prepared is not in the file: it has to be known from elsewhere.

    Raises:
        UserError: the file cannot be read, holds no detector, or one of another depth, head or class count; or a
            weight is missing, unexpected or of another shape.
    """
    section = open_checkpoint(path).section("model")
    found = {name: _tensor(name, value, path) for name, value in section.items() if not name.startswith(CONSTANTS)}
    expected = model.state_dict()
    if not any(name.startswith("roi_heads.") for name in found):
        held = "the weights of a backbone alone" if "stem.conv1.weight" in found else "none"
        raise UserError(
            f"{path}: expected a whole detector's weights under the key `model`, found {held}; "
            "name a model_final.pth that a detection run wrote"
        )
    kind, found_kind = _describe(expected), _describe(found)
    if kind != found_kind:
        raise UserError(
            f"{path}: expected the weights of {kind}, found those of {found_kind}; "
            "name another file, or the protocol that they were trained with"
        )
    rows, found_rows = (len(state[CLASS_ROWS]) if CLASS_ROWS in state else 0 for state in (expected, found))
    if found_rows not in (0, rows):
        raise UserError(
            f"{path}: expected {rows} rows in {CLASS_ROWS}, found {found_rows}: "
            f"trained for {found_rows - 1} classes, not {rows - 1}; name a file trained on these classes"
        )
    _check_tensors(expected, found, path)
    model.load_state_dict(found, strict=False)


def require_trained_from(backbone: Backbone, path: Path) -> None:
    """Refuse a whole detector of another backbone, which may want its pixels in another way or stride elsewhere.

    Those that we trained, on either engine, say from which; any other file is taken as it is.

    Raises:
        UserError: the file cannot be read, or names another backbone.
    """
    content = open_checkpoint(path)
    for run in ("mocobench/run", "curve/run"):  # of the embedded engine, of Detectron2
        found = content.section(run).get("backbone", backbone.digest)
        if found != backbone.digest:
            raise UserError(
                f"{path}: expected a detector trained from {backbone.provenance.source} (digest {backbone.digest[:12]})"
                f", found one trained from another backbone (digest {found[:12]}); name that one with --backbone"
            )


def _tensor(name: str, value: Any, path: Path) -> torch.Tensor:
    if isinstance(value, np.ndarray):
        return torch.tensor(value)  # a copy: arrays of a file are read-only
    if isinstance(value, torch.Tensor):
        return value
    raise UserError(f"{path}: expected a tensor or an array as {name}, found {type(value).__name__}; name another file")


def _describe(names: Iterable[str]) -> str:
    """The kind of detector that weights of these names make, for people and for comparison."""
    names = set(names)
    levels = "FPN" if any(name.startswith("backbone.bottom_up.") for name in names) else "C4"
    blocks = len(set(_matches(r"backbone\.(?:bottom_up\.)?res4\.(\d+)\.", names)))
    counts = ((kind, len(_matches(rf"roi_heads\.box_head\.{kind}(\d+)\.weight", names))) for kind in ("conv", "fc"))
    layers = "".join(f"{count}{kind}" for kind, count in counts if count)
    parts = [
        f"R{DEPTH_BY_BLOCKS.get(blocks, f' with {blocks} blocks in res4')}-{levels}",
        f"box head {layers or 'res5'}",
    ]
    if "roi_heads.res5.norm.weight" in names:
        parts.append("extra norm")
    if _matches(r"roi_heads\.(box_head\.conv|mask_head\.mask_fcn)1\.norm\.", names):
        parts.append("norm in heads")
    parts.append("masks" if _matches(r"roi_heads\.(mask_head)\.", names) else "no masks")
    return ", ".join(parts)


def _matches(pattern: str, names: set[str]) -> list[str]:
    """The group of the pattern in each name that begins with it."""
    return [match[1] for name in names if (match := re.match(pattern, name))]


def _check_tensors(expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor], path: Path) -> None:
    """Every weight is there, in its shape, and nothing else is."""
    faults = {
        "missing": [name for name in expected if name not in found and not is_counter(name)],
        "unexpected": [name for name in found if name not in expected],
        "of another shape": [
            f"{name} {tuple(found[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in found and found[name].shape != tensor.shape
        ],
    }
    listed = "; ".join(f"{fault}: {_first_few(names)}" for fault, names in faults.items() if names)
    if listed:
        raise UserError(f"{path}: expected exactly this detector's weights, found {listed}; name another file")


def _first_few(names: list[str]) -> str:
    more = len(names) - NUM_LISTED
    return ", ".join(names[:NUM_LISTED]) + (f" and {more} more" if more > 0 else "")
