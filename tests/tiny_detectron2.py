"""A configuration of Detectron2 for three classes, and an input convention unlike any in use, for its tests."""

from typing import Any

from benchmarks.detection.detectron2_config import build_config
from benchmarks.detection.protocol import DetectionProtocol
from transfer.backbone import InputSpec

SPEC = InputSpec(mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.5))


def config(protocol: DetectionProtocol, *, spec: InputSpec = SPEC, stride_in_1x1: bool = False, norm: str = "") -> Any:
    return build_config(protocol, spec=spec, stride_in_1x1=stride_in_1x1, num_classes=3, norm=norm or protocol.norm)
