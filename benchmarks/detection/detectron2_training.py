"""Fine-tuning by Detectron2's trainer and hooks, its resume, and the loss curve."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.context import RunContext
from benchmarks.detection.detectron2_data import POSITION, training_batches
from benchmarks.detection.detectron2_weights import load_start
from benchmarks.detection.embedded_training import CURVE_STEP
from benchmarks.detection.protocol import DetectionProtocol
from benchmarks.detection.records import DetectionData, DetectionSet
from benchmarks.detection.sampler import sampler_seed
from benchmarks.run_folder import describe_run, read_own
from mocobench.runtime.distributed import copy_from_main, is_main, rank, world_size
from mocobench.runtime.errors import UserError
from mocobench.runtime.files import write_text
from mocobench.runtime.memory import out_of_memory_means
from mocobench.runtime.progress import progress
from transfer.backbone import Backbone

LESS_MEMORY = (
    "use --engine embedded --images-per-pass N, which leaves the batch as it is; or lower --batch-size, "
    "--train-short-sides or --rois-per-image, which change the protocol"
)
OLDER_NOTE = "detectron2_run.json"  # beside checkpoints of older versions: the run that they are of


class LossCurve:
    """The loss curve in the embedded engine's shape, and its `run`: parts of Detectron2's checkpoints, for a resume."""

    def __init__(self, iterations: int, run: dict[str, str]) -> None:
        self.iterations, self.run = iterations, run
        self.points: list[dict[str, float]] = []
        self.since: list[dict[str, float]] = []

    def add(self, iteration: int, learning_rate: float, losses: dict[str, float]) -> None:
        """Note an iteration, counted from 1; make a point of the means since the last where one is due."""
        self.since.append(losses)
        if iteration % CURVE_STEP == 0 or iteration == self.iterations:
            means = {name: float(np.mean([each[name] for each in self.since])) for name in losses}
            self.points.append({"iteration": iteration, "learning_rate": learning_rate, **means})
            self.since = []

    def state_dict(self) -> dict[str, Any]:
        return {"run": self.run, "points": self.points, "since": self.since}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.points, self.since = state["points"], state["since"]


def fine_tune(
    model: Any,
    cfg: Any,
    backbone: Backbone,
    data: DetectionData,
    protocol: DetectionProtocol,
    context: RunContext,
    *,
    workspace: Path,
) -> tuple[tuple[dict[str, float], ...], int]:
    """Fine-tune Detectron2's model in place and make its BatchNorm statistics precise.

    A folder `context.out` with checkpoints of this very run continues it: weights, optimizer, schedule and curve come
    back; the order of images and the random draws begin anew, as they do in Detectron2.

    Returns:
        The points of the loss curve, and the iteration that training started from.

    Raises:
        UserError: a loss is not finite, an image cannot be read, memory runs out, the backbone's weights found no
            place, or the folder holds checkpoints of another run.
    """
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.utils.env import seed_all_rng

    run = describe_run(backbone, protocol, context, data.identity)
    curve = LossCurve(protocol.iterations, run)
    trainer, scheduler = _build_trainer(model, cfg, context)
    checkpointer = DetectionCheckpointer(model, cfg.OUTPUT_DIR, trainer=trainer, curve=curve)
    trainer.register_hooks(_hooks(trainer.model, scheduler, checkpointer, curve, cfg, context))
    start = 0
    if checkpointer.has_checkpoint():
        read_own(Path(checkpointer.get_checkpoint_file()), _read, run, resume=context.resume)
        checkpointer.resume_or_load("", resume=True)
        start = trainer.iter + 1
    else:
        if is_main():
            write_text(Path(cfg.OUTPUT_DIR) / "config.yaml", cfg.dump())
        load_start(model, checkpointer, backbone, protocol, file=workspace / "backbone.pkl", seed=context.seed)
    seed_all_rng(cfg.SEED + rank())
    try:
        with out_of_memory_means(
            f"training on {protocol.batch_size // world_size()} images at a time", remedy=LESS_MEMORY
        ):
            trainer.train(start, protocol.iterations)
    except FloatingPointError as error:
        raise _diverged(trainer.iter, trainer.data_loader.latest, data.train, str(error)) from error
    copy_from_main(list(model.buffers()))  # the statistics that rank 0 saved; without SyncBN each has its own
    return tuple(curve.points), start


def _build_trainer(model: Any, cfg: Any, context: RunContext) -> tuple[Any, Any]:
    """Detectron2's trainer without hooks, and the schedule of its learning rate."""
    from detectron2.engine import SimpleTrainer, create_ddp_model
    from detectron2.solver import build_lr_scheduler, build_optimizer

    optimizer = build_optimizer(cfg, model)
    batches = training_batches(cfg, seed=sampler_seed(context.seed, "detection-training"))
    # Without device_ids Detectron2 takes the GPU of the process's rank, which a CPU run does not have.
    on_cpu = {"device_ids": None} if context.device.type == "cpu" else {}
    trainer = SimpleTrainer(create_ddp_model(model, broadcast_buffers=False, **on_cpu), batches, optimizer)
    return trainer, build_lr_scheduler(cfg, optimizer)


def _hooks(model: Any, scheduler: Any, checkpointer: Any, curve: LossCurve, cfg: Any, context: RunContext) -> list[Any]:
    """Detectron2's hooks in its order: PreciseBN comes before the checkpoint that holds its statistics."""
    from detectron2.engine import hooks
    from detectron2.utils.events import CommonMetricPrinter, JSONWriter, TensorboardXWriter

    chosen: list[Any] = [hooks.IterationTimer(), hooks.LRScheduler(scheduler=scheduler)]
    if cfg.TEST.PRECISE_BN.ENABLED:
        inline = cfg.clone()
        inline.DATALOADER.NUM_WORKERS = 0  # as Detectron2: workers of the training loader still run
        batches = training_batches(inline, seed=sampler_seed(context.seed, "detection-precise-bn"))
        chosen.append(hooks.PreciseBN(0, model, batches, cfg.TEST.PRECISE_BN.NUM_ITER))
    if is_main():
        chosen.append(_curve_hook(curve))
        if context.out is not None:
            chosen.append(hooks.PeriodicCheckpointer(checkpointer, context.checkpoint_every, max_to_keep=1))
            writers = [
                CommonMetricPrinter(cfg.SOLVER.MAX_ITER),
                JSONWriter(str(context.out / "metrics.json")),
                TensorboardXWriter(str(context.out)),
            ]
            chosen.append(hooks.PeriodicWriter(writers, period=CURVE_STEP))
    return chosen


def _curve_hook(curve: LossCurve) -> Any:
    """Notes every iteration in the curve and moves the progress bar."""
    from detectron2.engine.hooks import CallbackHook

    bars: list[Any] = []

    def open_bar(trainer: Any) -> None:
        bars.append(progress(total=curve.iterations, done=trainer.start_iter, label="fine-tune", unit="iteration"))

    def note(trainer: Any) -> None:
        latest = {name: float(value) for name, (value, _) in trainer.storage.latest().items()}
        losses = {name: value for name, value in latest.items() if name.startswith(("total_loss", "loss_"))}
        curve.add(trainer.iter + 1, latest["lr"], losses)
        bars[0].set_postfix({name: f"{value:.3f}" for name, value in losses.items()}, refresh=False)
        bars[0].update()

    return CallbackHook(before_train=open_bar, after_step=note, after_train=lambda trainer: bars[0].close())


def _read(checkpoint: Path) -> tuple[dict[str, str], None]:
    """The run that Detectron2's checkpoint is of; Detectron2 itself loads the rest."""
    curve = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["curve"]
    return curve.get("run") or json.loads(checkpoint.with_name(OLDER_NOTE).read_text(encoding="utf-8")), None


def _diverged(iteration: int, batch: list[dict[str, Any]], train: DetectionSet, found: str) -> UserError:
    ids = ", ".join(str(train.images[entry[POSITION]].image_id) for entry in batch)
    return UserError(
        f"iteration {iteration + 1}, images {ids}: expected finite losses, found {' '.join(found.split())}; "
        "lower the learning rate or look at these annotations"
    )
