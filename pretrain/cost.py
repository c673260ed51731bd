"""What a training step costs, measured on random views: seconds, images per second and peak memory."""

import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch

from mocobench.runtime.device import choose_device
from mocobench.runtime.distributed import world_size
from mocobench.runtime.environment import peak_memory_bytes, reset_peak_memory
from mocobench.runtime.errors import UserError
from mocobench.runtime.memory import out_of_memory_means
from mocobench.runtime.progress import say
from pretrain.methods import make_model
from pretrain.recipes import ARCHS, choose_recipe
from pretrain.run import Cost, Plan, Progress, TrainingRun
from pretrain.settings import Recipe
from pretrain.step import Trainer

# The mechanisms of MoCo v2's Table 3, by method, with its settings.
RECIPES = {"moco": "moco-v2-200ep", "end-to-end": "end-to-end-200ep"}
# Steps of a run that is worth an estimate: the three that it takes, six on a GPU that replays them, are few of them.
WORTH_ESTIMATING = 300


def cost_recipe(method: str, *, batch_size: int, arch: str, image_size: int) -> Recipe:
    """The recipe of a method with the batch of one device, which is one BN group, as in the paper.

    Raises:
        UserError: the method is not one of the two that the paper compares, no such arch, or a batch of one image.
    """
    if method not in RECIPES:
        raise UserError(f"--methods {method}: expected {' or '.join(RECIPES)}")
    if arch not in ARCHS:
        raise UserError(f"--arch {arch}: expected one of {', '.join(ARCHS)}")
    if batch_size < 2:
        raise UserError(f"--batch-sizes {batch_size}: expected at least 2 images, which BN needs")
    recipe = choose_recipe(RECIPES[method])
    return replace(recipe, batch_size=batch_size, bn_groups=1, arch=arch, image_size=image_size)


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """What decides the cost, for a record."""
    names = ("method", "batch_size", "arch", "image_size", "bn_groups", "mlp", "dim", "queue_size", "optimizer")
    return {name: getattr(recipe, name) for name in names}


def measure_apart(recipe: Recipe, *, device: torch.device, precision: str, num_steps: int) -> Cost:
    """`measure_steps` in a process of its own, so that nothing that ran before is in the peak of memory.

    Raises:
        UserError: the batch does not fit into memory.
    """
    run = TrainingRun(
        recipe=recipe,
        differs=(),
        data=Path(),
        out=Path(),
        seed=0,
        device=device,
        precision=precision,
        num_workers=0,
    )
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
            return apart.submit(_measure_in_a_new_process, run, num_steps=num_steps).result()
    except BrokenProcessPool as error:
        raise UserError(
            f"{recipe.method} at batch {recipe.batch_size}: expected enough memory, found that the system killed the "
            "process; use a smaller batch"
        ) from error


def _measure_in_a_new_process(run: TrainingRun, *, num_steps: int) -> Cost:
    choose_device(run.device.type)  # sets the device up as that of a run
    return measure_steps(run, num_steps=num_steps)


def estimate(run: TrainingRun, plan: Plan) -> Cost | None:
    """What a step of a run costs, tried on a throw-away model before the run makes its own; None for a short run.

    That it is being tried is said: on a processor it can take minutes.

    Raises:
        UserError: the batch does not fit into memory.
    """
    if plan.steps < WORTH_ESTIMATING:
        return None
    say("trying a few steps, for an estimate of memory and time")
    return measure_steps(run, num_steps=2)


def measure_steps(run: TrainingRun, *, num_steps: int) -> Cost:
    """The median of `num_steps` steps of a throw-away model, after those of warm-up, which are not counted.

    Seeds the global generators, as making a model does. With several processes all of them have to call it.

    Raises:
        UserError: the batch does not fit into memory.
    """
    recipe, size = run.recipe, run.recipe.image_size
    reset_peak_memory(run.device)
    with out_of_memory_means(f"{recipe.method} at batch {recipe.batch_size}", remedy="use a smaller batch"):
        model, optimizer = make_model(run)
        for group in optimizer.param_groups:
            group["lr"] = 0.0  # random views would teach it nothing, and at a high rate numbers that are not finite
        trainer = Trainer(run, model, optimizer)
        views = torch.randint(
            0, 256, (recipe.batch_size // world_size(), 2, 3, size, size), dtype=torch.uint8, device=run.device
        )
        seconds = []
        for step in range(trainer.warm_up_steps + num_steps):
            started = time.perf_counter()
            trainer.step(views, Progress(step=step)).wait()
            seconds.append(time.perf_counter() - started)
    typical = median(seconds[-num_steps:])
    return Cost(typical, len(views) / typical, peak_memory_bytes(run.device))
