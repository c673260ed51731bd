"""kNN at a size for tests: its plan, and a run of it on a random ResNet-18."""

from pathlib import Path
from typing import Any

import torch

from benchmarks.context import RunContext
from benchmarks.result import Result
from benchmarks.run import Plan, plan_run, run_plan
from transfer.network import random_backbone

SMALL_KNN = {"image_size": 32, "test_resize": 36, "neighbors": (1, 5)}
CONTEXT = RunContext(seed=3, device=torch.device("cpu"), precision="fp32", num_workers=0)


def knn_plan(**changes: Any) -> Plan:
    arguments: dict[str, Any] = {"protocol_name": "smoke", "overrides": SMALL_KNN, "context": CONTEXT}
    return plan_run("imagenet-knn", **{**arguments, **changes})


def run_knn(data: Path, **changes: Any) -> Result:
    backbone = random_backbone("resnet18", 0)
    command = ("mocobench", "bench", "imagenet-knn")
    return run_plan(knn_plan(**changes), backbone=backbone, backbone_name="random", data=data, command=command)
