"""One engine in one process: time its training step or its inference, and print seconds and peak memory as JSON.

python -m tests.perf.one_engine embedded-fp32 c4 train --rounds 3 --device cpu
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from benchmarks.detection.detectron2_config import build_config
from benchmarks.detection.embedded.instances import Targets
from benchmarks.detection.embedded.rcnn import RCNN
from benchmarks.detection.embedded.solver import build_optimizer
from benchmarks.detection.embedded_model import build_model
from benchmarks.detection.protocol import COCO_PROTOCOLS, VOC_PAPER, DetectionProtocol
from mocobench.runtime.device import autocast, choose_device
from mocobench.runtime.environment import peak_memory_bytes, reset_peak_memory
from transfer.network import random_backbone

ENGINES = ("detectron2-fp32", "embedded-fp32", "embedded-bf16")
HEIGHT, WIDTH, NUM_IMAGES, NUM_CLASSES = 192, 256, 2, 20
# Regions per image in training, proposals per image in inference: sizes for two CPU cores.
REGIONS = {"rois_per_image": 64, "rpn_post_nms_test": 100}
MODELS: dict[str, DetectionProtocol] = {
    "c4": replace(VOC_PAPER, **REGIONS),
    "fpn-2fc": replace(COCO_PROTOCOLS["fpn-2fc"], **REGIONS),
}
LEARNING_RATE = 1e-4  # so that the weights stay where they are, round after round
Step = Callable[[], object]


def objects() -> list[Targets]:
    """Three objects in each image, with their outlines."""
    boxes = [
        torch.tensor([[20.0, 30, 100, 120], [80, 20, 180, 100], [5, 5, 40, 40]]),
        torch.tensor([[60.0, 20, 150, 110], [100, 100, 250, 180], [30, 90, 90, 190]]),
    ]
    labels = [torch.tensor([3, 7, 19]), torch.tensor([0, 1, 7])]
    outlines = [tuple([_outline(box)] for box in image.tolist()) for image in boxes]
    return [Targets(*parts) for parts in zip(boxes, labels, outlines, strict=True)]


def _outline(box: list[float]) -> Any:
    x1, y1, x2, y2 = box
    return torch.tensor([x1, y1, x2, y1, x2, y2, x1, y2], dtype=torch.float64).numpy()


def embedded_steps(model: RCNN, protocol: DetectionProtocol, images: torch.Tensor, precision: str) -> dict[str, Step]:
    """The embedded engine's training step and inference, as it runs them."""
    device = images.device
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = images.contiguous(memory_format=torch.channels_last)
    sizes = [(HEIGHT, WIDTH)] * NUM_IMAGES
    targets = [each.to(device) for each in objects()]
    optimizer = build_optimizer(
        model, learning_rate=LEARNING_RATE, momentum=protocol.momentum, weight_decay=1e-4, weight_decay_norm=0.0
    )

    def train() -> None:
        with autocast(device, precision):
            losses = model.train()(images, sizes, targets)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()

    def infer() -> None:
        with autocast(device, precision):
            model.eval().detect(images[:1], sizes[:1])

    return {"train": train, "infer": infer}


def detectron2_steps(start: RCNN, protocol: DetectionProtocol, images: torch.Tensor) -> dict[str, Step]:
    """Detectron2's training step and inference on the same weights, images and objects."""
    from detectron2.modeling import build_model as build_detectron2_model
    from detectron2.solver import build_optimizer as build_detectron2_optimizer
    from detectron2.structures import Boxes, Instances, PolygonMasks
    from detectron2.utils.events import EventStorage

    spec = random_backbone("resnet50", seed=0).input
    cfg = build_config(protocol, spec=spec, stride_in_1x1=False, num_classes=NUM_CLASSES, norm="BN")
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = str(images.device), ""
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]
    cfg.SOLVER.BASE_LR = LEARNING_RATE
    model = build_detectron2_model(cfg)
    model.load_state_dict(start.state_dict(), strict=True)
    optimizer = build_detectron2_optimizer(cfg, model)

    def inputs() -> list[dict[str, Any]]:
        batch = []
        for image, goal in zip(images, objects(), strict=True):
            instances = Instances((HEIGHT, WIDTH), gt_boxes=Boxes(goal.boxes), gt_classes=goal.labels)
            if protocol.masks:
                instances.gt_masks = PolygonMasks(list(goal.masks or ()))
            batch.append({"image": image, "height": HEIGHT, "width": WIDTH, "instances": instances})
        return batch

    def train() -> None:
        with EventStorage():
            losses = model.train()(inputs())
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()

    def infer() -> None:
        with torch.no_grad():
            model.eval()([{"image": images[0], "height": HEIGHT, "width": WIDTH}])

    return {"train": train, "infer": infer}


def measure(engine: str, model: str, what: str, *, rounds: int, device: torch.device) -> dict[str, Any]:
    """Seconds of `rounds` steps after one that is not counted, and the peak memory of the process in bytes."""
    protocol = MODELS[model]
    name, precision = engine.split("-")
    start = build_model(random_backbone("resnet50", seed=0), protocol, num_classes=NUM_CLASSES, seed=0)
    images = torch.randn(NUM_IMAGES, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0)).to(device)
    if name == "embedded":
        step = embedded_steps(start, protocol, images, precision)[what]
    else:
        step = detectron2_steps(start, protocol, images)[what]
        del start
    reset_peak_memory(device)  # the peak of the steps, not of what was built for them
    step()
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return {"seconds": seconds, "peak_memory_bytes": peak_memory_bytes(device)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("what", choices=("train", "infer"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    device = choose_device(args.device)
    print(json.dumps(measure(args.engine, args.model, args.what, rounds=args.rounds, device=device)))
