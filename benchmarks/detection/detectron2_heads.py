"""The C4 heads with a norm after res5 (MoCo v1, arXiv 1911.05722, appendix), on Detectron2's own C4 heads."""

from functools import cache
from typing import Any


@cache
def register_extra_norm_heads() -> str:
    """Make the heads known to Detectron2, once in a process; return the name that MODEL.ROI_HEADS.NAME takes.

    The norm is a module `norm` within `res5`, so its tensors are `roi_heads.res5.norm.*` as in MoCo's detection code.
    """
    from detectron2.layers import get_norm
    from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, Res5ROIHeads

    class MocobenchExtraNormRes5ROIHeads(Res5ROIHeads):
        @classmethod
        def from_config(cls, cfg: Any, input_shape: Any) -> dict[str, Any]:
            arguments: dict[str, Any] = super().from_config(cfg, input_shape)
            res5 = arguments["res5"]
            res5.add_module("norm", get_norm(cfg.MODEL.RESNETS.NORM, res5[-1].out_channels))
            return arguments

    ROI_HEADS_REGISTRY.register(MocobenchExtraNormRes5ROIHeads)
    return MocobenchExtraNormRes5ROIHeads.__name__
