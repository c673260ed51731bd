"""What a tool's own ResNet cannot be: weights for it would not load, or load and be used wrongly."""

from mocobench.runtime.errors import UserError
from transfer.arch import STEMS, parse_arch
from transfer.backbone import Backbone


def refuse_stride_in_1x1(backbone: Backbone, tool: str) -> None:
    """Raise a UserError if the stride is in the 1x1 convolutions, where the tool's ResNets do not have it."""
    if backbone.stride_in_1x1:
        raise UserError(
            f"{backbone.provenance.source}: expected the stride in the 3x3 convolutions, as {tool} has it, found "
            "it in the 1x1; convert to detectron2 or safetensors"
        )


def refuse_small_stem(backbone: Backbone, tool: str) -> None:
    """Raise a UserError if the stem is one for small pictures, which the tool's ResNets do not have."""
    if parse_arch(backbone.arch).stem != STEMS[""]:
        raise UserError(
            f"{backbone.provenance.source}: expected a 7x7 stem, as {tool} has it, found a {backbone.arch} with a 3x3 "
            "stem for small pictures; convert to safetensors"
        )


def refuse_width(backbone: Backbone, tool: str) -> None:
    """Raise a UserError if every convolution is wider than in the tool's ResNets."""
    arch = parse_arch(backbone.arch)
    if arch.width > 1:
        raise UserError(
            f"{backbone.provenance.source}: expected the width of a resnet{arch.depth}, as {tool} has it, found a "
            f"{arch.name}, {arch.width} times as wide throughout; convert to safetensors"
        )


def refuse_inner_width(backbone: Backbone, tool: str) -> None:
    """Raise a UserError if the 3x3 convolutions alone are wider than in the tool's ResNets."""
    arch = parse_arch(backbone.arch)
    if arch.inner_width > 1:
        raise UserError(
            f"{backbone.provenance.source}: expected the inner width of a resnet{arch.depth}, as {tool} has it, found "
            f"a {arch.name}, {arch.inner_width} times as wide in its 3x3 convolutions; convert to safetensors"
        )
