"""The trunk of a converted Detectron2 file, run by the embedded engine: a witness in the proof of a conversion."""

import torch
from torch import nn

from benchmarks.detection.embedded.resnet import STAGES, ResNet
from transfer.load import Loaded

ARCH = "resnet50"  # the one network that the engine has


class Trunk(nn.Module):
    """The engine's ResNet-50 under the names of Detectron2's weight files."""

    def __init__(self, *, stride_in_1x1: bool) -> None:
        super().__init__()
        resnet = ResNet(outputs=tuple(STAGES), stride_in_1x1=stride_in_1x1)
        self.stem = resnet.stem
        for stage in STAGES:
            self.add_module(stage, resnet.get_submodule(stage))

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """What every stage makes of images, under the names of `transfer.features.STAGES`."""
        x = self.stem(images)
        outputs = {"stem": x}
        for number, stage in enumerate(STAGES, start=1):
            x = outputs[f"layer{number}"] = self.get_submodule(stage)(x)
        return outputs | {"pooled": x.mean(dim=(2, 3))}


@torch.inference_mode()
def run_by_embedded_engine(loaded: Loaded, images: torch.Tensor) -> dict[str, torch.Tensor] | None:
    """What every stage makes of prepared images (N, 3, H, W), from the file's own names, every one of which must fit.

    None for other formats than Detectron2's and other networks than a ResNet-50.
    """
    if loaded.format != "detectron2" or loaded.backbone.arch != ARCH:
        return None
    with torch.device("meta"):  # the file's tensors take the places of its own
        trunk = Trunk(stride_in_1x1=loaded.found.stride_in_1x1).eval()
    missing, unexpected = trunk.load_state_dict(loaded.found.network, strict=False, assign=True)
    assert not unexpected, unexpected
    assert all(name.endswith(".num_batches_tracked") for name in missing), missing
    outputs: dict[str, torch.Tensor] = trunk(images)
    return outputs
