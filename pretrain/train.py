"""The pretraining run: loop, checkpoints, resume at any step, in one process or as one of several.

In `out`: checkpoint_last.pth.tar every `checkpoint_every` steps, when it is `checkpoint_minutes` old, and after every
epoch, the one before it as checkpoint_previous.pth.tar, checkpoint_NNNN.pth.tar after the last epoch and every
`keep_every` epochs, metrics.jsonl (one line an epoch), run.json, TensorBoard events. Rank 0 writes all of them.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from mocobench.runtime.distributed import gather_objects, is_main, is_restarted, sum_over_ranks, world_size
from mocobench.runtime.environment import reset_peak_memory
from mocobench.runtime.errors import UserError
from mocobench.runtime.files import require_writable
from mocobench.runtime.memory import out_of_memory_means
from mocobench.runtime.progress import progress as progress_bar
from mocobench.runtime.progress import say
from mocobench.runtime.workers import lost_workers_are_named
from pretrain.checkpoint import LAST, PREVIOUS, last_checkpoint, load_checkpoint, remove_halves, save_checkpoint
from pretrain.cost import estimate
from pretrain.data import Batch, OwnParts, load_batches
from pretrain.images import training_images
from pretrain.interrupts import interrupts_wait
from pretrain.lock import sole_run
from pretrain.methods import make_model
from pretrain.monitor import KnnMonitor, make_monitor
from pretrain.record import MetricsLog, epoch_text, write_run_record
from pretrain.run import Plan, Progress, TrainingRun, make_plan, plan_text
from pretrain.schedule import learning_rate
from pretrain.sessions import began_from, begin_session
from pretrain.step import StepMetrics, Trainer
from pretrain.waiting import DataWait


@dataclass
class Training:
    """A run, the plan for it, what it trains on and with, and how far it is."""

    run: TrainingRun
    plan: Plan
    data: dict[str, Any]
    batches: Iterator[Batch | UserError]
    model: nn.Module
    optimizer: torch.optim.Optimizer
    trainer: Trainer
    progress: Progress
    monitor: KnnMonitor | None
    unread: tuple[StepMetrics, Callable[[], float]] | None = None
    bad_images_told: int = 0
    saved_at: float = field(default_factory=time.monotonic)
    is_worth_saving: bool = False

    @contextmanager
    def to_the_end(self) -> Iterator[None]:
        """An interrupt inside comes at the end; what is broken off all the same is not worth saving.

        A group is broken off at once: a rank that went on would wait for one that has gone.
        """
        with interrupts_wait() if world_size() == 1 else nullcontext():
            self.is_worth_saving = False
            yield
            self.is_worth_saving = True

    def read_metrics(self) -> float | None:
        """Add the metrics of the step that was started last to the sums, and the seconds that it waited for data.

        Returns its loss, None if it has been read.

        Done when the next one has been started, so that a GPU always has work, and before a save or an epoch's end.

        Raises:
            UserError: the loss is not finite.
        """
        if self.unread is None:
            return None
        (metrics, waited), self.unread = self.unread, None
        values = metrics.wait()
        self.progress.add({**values, "waited": waited()})
        return values["loss"]

    def checkpoint_is_due(self) -> bool:
        """Whether to save after this step: by the count of steps, or by the clock of rank 0, which all go by."""
        if self.progress.step % self.run.checkpoint_every == 0:
            return True
        if not self.run.checkpoint_minutes:
            return False
        is_old = is_main() and time.monotonic() - self.saved_at >= 60 * self.run.checkpoint_minutes
        return sum_over_ranks(torch.tensor([float(is_old)])).item() > 0

    def save(self, *, number: int | None = None) -> None:
        """Write run.json and the last checkpoint, on rank 0.

        Raises:
            UserError: the last step's loss is not finite, or it cannot be written; the last checkpoint is kept.
        """
        started = time.monotonic()
        self.read_metrics()
        self.share_bad_images()
        if is_main():
            write_run_record(self.run, self.plan, self.progress, data=self.data)
            save_checkpoint(
                self.run,
                data=self.data,
                progress=self.progress,
                model=self.model,
                optimizer=self.optimizer,
                number=number,
            )
        self.saved_at = time.monotonic()
        self.progress.seconds += self.saved_at - started

    def share_bad_images(self) -> None:
        """Let every process know what any of them has found, and people when it is more than they have been told."""
        found = gather_objects(self.progress.bad_images)
        bad = self.progress.bad_images = sorted({name for names in found for name in names})
        if is_main() and len(bad) > self.bad_images_told:
            print(f"images that cannot be read so far: {len(bad)}, {bad[0]} first; they are skipped (run.json)")
        self.bad_images_told = len(bad)


def pretrain(run: TrainingRun) -> Path:
    """Run, or continue, pretraining; return the path of the last checkpoint.

    Raises:
        UserError: `out` cannot be written or another run is at work there, bad data, an unusable resume, too little
            memory, or a loss that is not finite (the last checkpoint is kept).
    """
    if is_main() and last_checkpoint(run.out) is None:  # a finished run may lie where nothing can be written
        require_writable(run.out, flag="--out")
    with sole_run(run.out):
        return _pretrain(run)


def _pretrain(run: TrainingRun) -> Path:
    training = _prepare(run)
    progress, recipe = training.progress, run.recipe
    if progress.epoch >= recipe.epochs:
        return _finished_before(run)
    changed = begin_session(run, progress)
    if is_main():
        print(plan_text(run, training.plan))
        if progress.epoch or progress.step:
            print(f"goes on after epoch {progress.epoch}, step {progress.step} of the next", flush=True)
        if changed:
            print(
                f"changed since: {', '.join(changed)}; the numbers may differ from those of an unbroken run", flush=True
            )
    reset_peak_memory(run.device)
    log = MetricsLog(run.out, epochs_done=progress.epoch) if is_main() else None
    done = (progress.epoch * training.plan.steps_per_epoch + progress.step) * recipe.batch_size
    total = training.plan.steps * recipe.batch_size
    bar = progress_bar(total=total, done=done, label="pretrain", unit="image")
    try:
        with lost_workers_are_named():
            while progress.epoch < recipe.epochs:
                bar.set_description(f"epoch {progress.epoch + 1}/{recipe.epochs}")
                metrics = train_epoch(training, bar) | _monitored(training)
                with training.to_the_end():
                    _end_epoch(training, metrics, log)
    except KeyboardInterrupt:
        # A single process is saved where it was; several need not be at the same step.
        if world_size() == 1 and training.is_worth_saving:
            training.save()
        raise
    bar.close()
    say(f"wrote {run.out / LAST}")
    return run.out / LAST


def _end_epoch(training: Training, metrics: dict[str, float], log: MetricsLog | None) -> None:
    """Log the epoch that has just been trained, then save.

    The checkpoint comes last: a run that is killed before it does the epoch's end again, one killed after it has
    nothing left to do there.
    """
    run, progress, epochs = training.run, training.progress, training.run.recipe.epochs
    training.share_bad_images()
    progress.epoch, progress.step, progress.sums = progress.epoch + 1, 0, {}
    if log is not None:
        log.write(metrics)
        say(epoch_text(metrics, epochs=epochs))
    is_kept = progress.epoch == epochs or (run.keep_every and progress.epoch % run.keep_every == 0)
    training.save(number=progress.epoch if is_kept else None)


def _finished_before(run: TrainingRun) -> Path:
    last = last_checkpoint(run.out)
    if last is None:
        raise UserError(
            f"--resume {run.resume}: expected a run that is not at its end, found all {run.recipe.epochs} epochs done; "
            f"nothing was written to {run.out}"
        )
    say(f"nothing to do: all {run.recipe.epochs} epochs are in {last}")
    return last


def _prepare(run: TrainingRun) -> Training:
    images = training_images(run.data)
    plan = make_plan(run, num_images=len(images))
    monitor = make_monitor(run.knn_data or run.data) if run.knn_every else None
    data = images.identity()
    goes_on = last_checkpoint(run.out) is not None or run.resume not in ("auto", "never")
    if not any(gather_objects(goes_on)):  # a run that goes on has its metrics; on every process alike
        plan = replace(plan, estimate=estimate(run, plan))
    model, optimizer = make_model(run)
    progress = _resume(run, data, model, optimizer)
    _require_one_start(run, data, progress)
    if is_main():
        remove_halves(run.out)
    batches = load_batches(
        OwnParts(images, run.recipe, run.seed, progress.epoch, progress.step),
        num_workers=run.num_workers,
        views_on_device=run.device.type != "cpu",
        skip_bad=run.on_bad_image == "skip",
        pin_memory=run.device.type == "cuda",
    )
    trainer = Trainer(run, model, optimizer)
    return Training(run, plan, data, batches, model, optimizer, trainer, progress, monitor)


def _monitored(training: Training) -> dict[str, float]:
    """What the monitor finds after the epoch that has just been trained, if it is one to look at.

    Raises:
        UserError: it does not fit into memory, or as for `KnnMonitor.measure`.
    """
    run, progress = training.run, training.progress
    epochs = progress.epoch + 1
    if training.monitor is None or (epochs % run.knn_every and epochs < run.recipe.epochs):
        return {}
    started = time.monotonic()
    # A compiled encoder would not see the monitor's hook.
    eagerly = torch.compiler.set_stance("force_eager") if run.compile else nullcontext()
    with eagerly, out_of_memory_means("the kNN of --knn-every", remedy="use a smaller --knn-data, or go on without"):
        found, bad_images = training.monitor.measure(run, training.model.get_submodule("encoder_q"))
    progress.bad_images += bad_images
    progress.seconds += time.monotonic() - started
    return found


def _resume(run: TrainingRun, data: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Load what `run.resume` asks for, or what a run that began with that has become; return how far that is."""
    last = last_checkpoint(run.out)
    load = partial(load_checkpoint, run=run, data=data, model=model, optimizer=optimizer)
    if run.resume == "never" and last and not is_restarted():
        raise UserError(f"--resume never: {last} exists; choose another --out or remove that run")
    if run.resume in ("auto", "never"):
        return load(last) if last else Progress()
    source = Path(run.resume)
    if not source.is_file():
        found = "a folder" if source.is_dir() else "no such file"
        raise UserError(f"--resume {source}: expected auto, never or a checkpoint, found {found}")
    if last is None or source.resolve() == last.resolve():
        return load(source)
    is_previous = source.resolve() == (run.out / PREVIOUS).resolve()
    try:
        progress = load(last)
    except UserError:
        if is_previous:  # asked for because the last one is damaged
            return load(source)
        raise
    if began_from(progress, source):
        return progress
    if is_previous:
        return load(source)
    raise UserError(f"--resume {source}: {last} exists and would be overwritten; choose another --out")


def _require_one_start(run: TrainingRun, data: dict[str, Any], progress: Progress) -> None:
    """Refuse to train one model from several starts, or on several sets of images.

    Raises:
        UserError: the processes do not see the same images, or not the same checkpoint.
    """
    starts = gather_objects((data, progress.epoch, progress.step))
    if any(start[0] != data for start in starts):
        raise UserError(f"--data {run.data}: expected the same images on every process, found different lists")
    if any(start != starts[0] for start in starts):
        found = ", ".join(f"epoch {epoch} step {step}" for _, epoch, step in starts)
        raise UserError(
            f"--out {run.out}: expected the same checkpoint on every process, found {found}; "
            "use a folder that all machines share"
        )


def train_epoch(training: Training, bar: "tqdm[Any]") -> dict[str, float]:
    """What is left of the epoch that `training.progress` is in; returns the whole epoch's metrics.

    Raises:
        UserError: an image cannot be read, the batch does not fit into memory, or a loss is not finite.
    """
    run, progress, steps = training.run, training.progress, training.plan.steps_per_epoch
    before, wait = time.monotonic(), DataWait(run.device)
    for batch in islice(training.batches, steps - progress.step):
        if isinstance(batch, UserError):
            raise batch
        waited = wait.step_begins(time.monotonic() - before)
        with training.to_the_end():
            progress.bad_images += batch.bad_images
            for group in training.optimizer.param_groups:
                group["lr"] = learning_rate(run.recipe, progress.epoch, progress.step, steps_per_epoch=steps)
            metrics = _take_step(training, batch)
            wait.work_ends()
            loss = training.read_metrics()  # of the step before
            training.unread = metrics, waited
            seconds = time.monotonic() - before
            progress.add({"seconds": seconds})
            progress.seconds += seconds
            progress.step += 1
            if loss is not None:
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update(run.recipe.batch_size)
            if progress.step < steps and training.checkpoint_is_due():
                training.save()
                wait.work_ends()
        before = time.monotonic()
    with training.to_the_end():
        training.read_metrics()
        progress.add({"seconds": time.monotonic() - before})
    sums = dict(progress.sums)
    in_wait, seconds = sums.pop("waited"), sums.pop("seconds")
    return {
        "epoch": progress.epoch + 1,
        "learning_rate": training.optimizer.param_groups[0]["lr"],  # of the last step
        **{name: total / steps for name, total in sums.items()},
        "images_per_second": steps * run.recipe.batch_size / seconds,
        "data_wait_share": in_wait / seconds,
        "wall_seconds": progress.seconds,
    }


def _take_step(training: Training, batch: Batch) -> StepMetrics:
    """Finish the batch's views on the device and take one step on them.

    Raises:
        UserError: they do not fit into memory.
    """
    run = training.run
    what = f"--batch-size {run.recipe.batch_size}: a step of {run.recipe.method} on {len(batch.pixels)} images"
    with out_of_memory_means(what, remedy="use a smaller --batch-size"):
        return training.trainer.step(batch.finish(run.recipe, run.device), training.progress)
