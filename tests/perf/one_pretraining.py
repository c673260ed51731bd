"""One implementation of MoCo v2's step in one process: time it, and print seconds and peak memory as JSON.

python -m tests.perf.one_pretraining mocobench-fp32 --steps 3 --device cpu

ResNet-50 at 224 pixels, batch 16, a queue of 65536 keys, one BN group. A step is both encoders, the momentum update,
logits, loss, backward, SGD and the queue. Ours starts from uint8 views, as a run does, Lightly's from normalised ones.
`lightly-kept` is Lightly's in a process that keeps its freed memory, as ours does. `convolutions-fp32` is what PyTorch
takes for such a step's convolutions, when there is nothing else in it.
"""

import argparse
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.models import resnet50

from mocobench.runtime.device import autocast, choose_device, choose_precision
from mocobench.runtime.environment import peak_memory_bytes, reset_peak_memory
from mocobench.runtime.memory import keep_freed_memory
from pretrain.methods import make_model
from pretrain.recipes import RECIPES, customise
from pretrain.run import Progress, TrainingRun
from pretrain.step import Trainer, make_normaliser

IMPLEMENTATIONS = ("lightly-fp32", "lightly-kept", "mocobench-fp32", "mocobench-auto", "convolutions-fp32")
BATCH_SIZE = 16
RECIPE, _ = customise(RECIPES["moco-v2-200ep"], {"batch_size": BATCH_SIZE, "bn_groups": 1})
VIEWS = (BATCH_SIZE, 2, 3, RECIPE.image_size, RECIPE.image_size)
Step = Callable[[], object]


def lightly_step(device: torch.device) -> Step:
    """The step of Lightly's own MoCo v2 on ImageNet, written with its loss, head and helpers."""
    from lightly.loss import NTXentLoss
    from lightly.models.modules import MoCoProjectionHead
    from lightly.models.utils import batch_shuffle, batch_unshuffle, deactivate_requires_grad, update_momentum

    backbone = resnet50()
    backbone.fc = nn.Identity()
    query_encoder = nn.Sequential(backbone, MoCoProjectionHead(2048, 2048, RECIPE.dim)).to(device)
    key_encoder = copy.deepcopy(query_encoder)
    deactivate_requires_grad(key_encoder)
    criterion = NTXentLoss(temperature=RECIPE.temperature, memory_bank_size=(RECIPE.queue_size, RECIPE.dim)).to(device)
    optimizer = torch.optim.SGD(
        query_encoder.parameters(), lr=RECIPE.learning_rate, momentum=RECIPE.momentum, weight_decay=RECIPE.weight_decay
    )
    queries, keys = torch.randn(VIEWS, device=device).unbind(dim=1)

    def step() -> None:
        query = query_encoder(queries)
        update_momentum(query_encoder, key_encoder, m=RECIPE.key_momentum)
        shuffled, order = batch_shuffle(keys)
        key = batch_unshuffle(key_encoder(shuffled), order)
        criterion(query, key).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def our_steps(precision: str, device: torch.device) -> dict[str, Step]:
    """Our step as a run does it, and the bare one: both encoders and the backward of the query's, with SGD."""
    run = TrainingRun(
        recipe=RECIPE,
        differs=(),
        data=Path(),
        out=Path(),
        seed=0,
        device=device,
        precision=choose_precision(precision, device),
        num_workers=0,
    )
    model, optimizer = make_model(run)
    encoder_q, encoder_k = model.get_submodule("encoder_q"), model.get_submodule("encoder_k")
    normalise, trainer = make_normaliser(run), Trainer(run, model, optimizer)
    views = torch.randint(0, 256, VIEWS, dtype=torch.uint8, device=device)
    queries, keys = (normalise(views[:, i]) for i in range(2))

    def full() -> None:
        trainer.step(views, Progress()).wait()

    def bare() -> None:
        optimizer.zero_grad()
        with autocast(device, run.precision):
            embeddings = encoder_q(queries)
            with torch.no_grad():
                encoder_k(keys)
        embeddings.float().sum().backward()
        optimizer.step()

    return {"seconds": full, "bare_seconds": bare}


def convolutions_step(device: torch.device) -> Step:
    """The convolutions of both encoders' forward pass and of the query encoder's backward, in fp32, channels last."""
    network = resnet50().to(device).to(memory_format=torch.channels_last)
    inputs: list[tuple[nn.Module, torch.Tensor]] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda module, args: inputs.append((module, args[0].detach().clone())))
    with torch.no_grad():
        network(torch.randn(VIEWS, device=device)[:, 0].contiguous(memory_format=torch.channels_last))
    convolutions = [(module.forward, module.get_parameter("weight"), images) for module, images in inputs]
    for _, _, images in convolutions[1:]:  # the first one's images are the views
        images.requires_grad_()

    def step() -> None:
        for convolve, weight, images in convolutions:
            with torch.no_grad():
                convolve(images)
            maps = convolve(images)
            torch.autograd.grad(maps, [weight, images] if images.requires_grad else [weight], maps.detach())

    return step


def measure(implementation: str, *, num_steps: int, device: torch.device) -> dict[str, Any]:
    """Seconds of `num_steps` steps of each kind, in turns, after one that is not counted; peak memory in bytes."""
    name, precision = implementation.split("-")
    if implementation in ("lightly-kept", "convolutions-fp32"):
        keep_freed_memory()
    if name == "mocobench":
        steps = our_steps(precision, device)
    else:
        steps = {"seconds": lightly_step(device) if name == "lightly" else convolutions_step(device)}
    reset_peak_memory(device)
    seconds: dict[str, list[float]] = {kind: [] for kind in steps}
    for _ in range(1 + num_steps):
        for kind, step in steps.items():
            started = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[kind].append(time.perf_counter() - started)
    return {kind: values[1:] for kind, values in seconds.items()} | {"peak_memory_bytes": peak_memory_bytes(device)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("implementation", choices=IMPLEMENTATIONS)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    print(json.dumps(measure(args.implementation, num_steps=args.steps, device=choose_device(args.device))))
