"""A pretraining run as it is asked for, how far it is, and the plan that is printed before it."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from mocobench.runtime.distributed import world_size
from mocobench.runtime.errors import UserError
from pretrain.settings import Recipe


@dataclass(frozen=True)
class TrainingRun:
    """One pretraining run. `resume` is `auto` (continue what is in `out`), `never`, or a checkpoint's path.

    `checkpoint_every` is in steps, and `checkpoint_minutes` says how old the last checkpoint may become besides (0: any
    age). `keep_every` is in epochs (0: only the last one is kept), and so is `knn_every`, after which the classes in
    `knn_data` are told apart (0: never; see pretrain.monitor). `on_bad_image` is `stop` or `skip`.
    `compile` is torch.compile's work on the encoders: other rounding, the same training.
    """

    recipe: Recipe
    differs: tuple[str, ...]
    data: Path
    out: Path
    seed: int
    device: torch.device
    precision: str
    num_workers: int
    resume: str = "auto"
    checkpoint_every: int = 1000
    checkpoint_minutes: float = 0.0
    keep_every: int = 0
    knn_every: int = 0
    knn_data: Path | None = None
    on_bad_image: str = "stop"
    compile: bool = False
    command: tuple[str, ...] = ()


@dataclass
class Progress:
    """`epoch` whole epochs and `step` steps of the next one are done, in `seconds` of all sessions together.

    `sums` are those of the running epoch's metrics over its steps so far; `bad_images` are the names of all that could
    not be read, with `kNN` before those of the monitor. `sessions` says where each began and what computed it
    (pretrain.sessions).
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    bad_images: list[str] = field(default_factory=list)
    sessions: list[dict[str, Any]] = field(default_factory=list)

    def add(self, values: dict[str, float]) -> None:
        """Add to the sums, by name."""
        self.sums = self.sums | {name: self.sums.get(name, 0.0) + value for name, value in values.items()}


@dataclass(frozen=True)
class Cost:
    """Of one step on one process's part of a batch; speed and memory are per process. Measured by pretrain.cost.

    `peak_memory_bytes` is of the process (`host`) and of its CUDA device (`device`) if it uses one.
    """

    seconds_per_step: float
    images_per_second: float
    peak_memory_bytes: dict[str, int]


@dataclass(frozen=True)
class Plan:
    """What follows from a recipe, a number of images and a number of processes. Batches are over all processes.

    `estimate` is what a step took on random views before the run, if that was tried.
    """

    images: int
    images_left_out_per_epoch: int
    batch_size: int
    steps_per_epoch: int
    epochs: int
    steps: int
    learning_rate: float
    processes: int
    images_per_process: int
    bn_groups: int
    images_per_bn_group: int
    checkpoint_every: int
    estimate: Cost | None = None


def make_plan(run: TrainingRun, *, num_images: int) -> Plan:
    """The plan for this many images on the processes that there are.

    Raises:
        UserError: fewer images than one batch, or BN groups or a batch that the processes cannot share equally.
    """
    recipe, processes = run.recipe, world_size()
    if num_images < recipe.batch_size:
        raise UserError(
            f"--batch-size {recipe.batch_size}: expected at least as many training images, found {num_images}; "
            "use a smaller batch or more images"
        )
    if recipe.bn_groups > 1 and recipe.bn_groups % processes:
        raise UserError(
            f"--bn-groups {recipe.bn_groups}: expected a multiple of the number of processes, or 1, found {processes} "
            f"processes; use as many as divide {recipe.bn_groups}, or --bn-groups {processes}, which normalises over "
            "other groups than the recipe"
        )
    if recipe.batch_size % processes:
        raise UserError(
            f"--batch-size {recipe.batch_size}: expected a multiple of the number of processes, found {processes} "
            f"processes; use as many as divide {recipe.batch_size}, or a batch that {processes} divides"
        )
    steps = num_images // recipe.batch_size
    return Plan(
        images=num_images,
        images_left_out_per_epoch=num_images % recipe.batch_size,
        batch_size=recipe.batch_size,
        steps_per_epoch=steps,
        epochs=recipe.epochs,
        steps=steps * recipe.epochs,
        learning_rate=recipe.learning_rate,
        processes=processes,
        images_per_process=recipe.batch_size // processes,
        bn_groups=recipe.bn_groups,
        images_per_bn_group=recipe.batch_size // recipe.bn_groups,
        checkpoint_every=run.checkpoint_every,
    )


def plan_text(run: TrainingRun, plan: Plan) -> str:
    """The plan for people."""
    recipe = run.recipe
    schedule = "half a cosine" if recipe.cosine else f"x 0.1 at epochs {recipe.decay_epochs}"
    warmup = f"{recipe.warmup_epochs} epochs of warm-up, then " if recipe.warmup_epochs else ""
    minutes = f", every {run.checkpoint_minutes:g} minutes" if run.checkpoint_minutes else ""
    changes = dict(change.split(": ", 1) for change in run.differs)
    rate = changes.get("learning_rate", f"{plan.learning_rate:.4g}, as in the recipe")
    lines: dict[str, Any] = {
        "steps": f"{plan.steps}: {plan.epochs} epochs of {plan.steps_per_epoch} batches of {plan.batch_size}",
        "images": f"{plan.images}, of which {plan.images_left_out_per_epoch} are left out of each epoch",
        "learning rate": f"{rate}; {warmup}{schedule}",
        "processes": f"{plan.processes}, {plan.images_per_process} images of a batch each",
        "BN groups": f"{plan.bn_groups}, {plan.images_per_bn_group} images each",
        "checkpoints": f"every {plan.checkpoint_every} steps{minutes} and after each epoch, in {run.out}",
    }
    if plan.estimate is not None:
        lines["estimated"] = estimate_text(plan.estimate, steps=plan.steps)
    width = max(map(len, lines))
    return "\n".join(["plan", *(f"  {name:<{width}}  {value}" for name, value in lines.items())])


def estimate_text(cost: Cost, *, steps: int) -> str:
    """What `steps` steps at this cost take, for people."""
    memory = ", ".join(f"{place} {size / 2**30:.1f} GiB" for place, size in cost.peak_memory_bytes.items())
    hours = steps * cost.seconds_per_step / 3600
    time = f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"
    return (
        f"{time}, memory of a process: {memory}; from steps of {cost.seconds_per_step:.3g} s on random views, without "
        "waiting for data, monitors and checkpoints"
    )


def describe(run: TrainingRun, data: dict[str, Any]) -> dict[str, Any]:
    """What makes this run the one it is, beside the code: two runs alike in it compute the same."""
    return {"recipe": asdict(run.recipe), "seed": run.seed, "data": data}
