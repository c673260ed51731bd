"""The trunk as Detectron2 itself builds it and runs it from a weight file, where Detectron2 is installed."""

import torch

from mocobench.runtime.detectron2 import why_no_detectron2
from transfer.arch import BASE_WIDTH, parse_arch
from transfer.features import STAGES
from transfer.load import Loaded

OUTPUTS = ("stem", "res2", "res3", "res4", "res5")


@torch.inference_mode()
def run_by_detectron2(loaded: Loaded, images: torch.Tensor) -> dict[str, torch.Tensor] | None:
    """What every stage of Detectron2's ResNet makes of prepared images, see `features`.

    None without Detectron2. The weights are those of the file, under the file's own names, and every one of them must
    find its place.
    """
    arch = parse_arch(loaded.backbone.arch)
    if why_no_detectron2():
        return None
    from detectron2.config import get_cfg
    from detectron2.modeling import build_backbone

    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    resnet = cfg.MODEL.RESNETS
    resnet.DEPTH, resnet.NORM, resnet.OUT_FEATURES = arch.depth, "BN", list(OUTPUTS)
    resnet.STRIDE_IN_1X1 = loaded.found.stride_in_1x1
    resnet.STEM_OUT_CHANNELS = BASE_WIDTH * arch.width
    resnet.RES2_OUT_CHANNELS = arch.feature_size // 8
    resnet.WIDTH_PER_GROUP = BASE_WIDTH * arch.width * arch.inner_width
    trunk = build_backbone(cfg).eval()
    trunk.load_state_dict(loaded.found.network, strict=True)
    outputs = trunk(images)
    pooled = outputs["res5"].mean(dim=(2, 3))
    return dict(zip(STAGES, [*(outputs[name] for name in OUTPUTS), pooled], strict=True))
