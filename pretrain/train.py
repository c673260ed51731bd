"""The pretraining run: plan, loop, resume at epoch ends, and what it writes.

In `out`: checkpoint_last.pth.tar after every epoch, checkpoint_NNNN.pth.tar after the last epoch and every
`keep_every` epochs, metrics.jsonl (one line an epoch), run.json, TensorBoard events.
"""

import json
import os
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from mocobench.runtime.device import autocast
from mocobench.runtime.environment import code_version, environment_stamp, peak_memory_bytes, reset_peak_memory
from mocobench.runtime.errors import UserError
from mocobench.runtime.files import atomic_file, write_text
from mocobench.runtime.images import list_sha256
from mocobench.runtime.progress import progress
from mocobench.runtime.seeds import derive_seed, seed_everything, torch_generator
from pretrain.checkpoint import LAST, load_checkpoint, numbered, save_checkpoint
from pretrain.data import make_loader, training_images
from pretrain.moco import MoCo, contrastive_loss
from pretrain.recipes import Recipe
from pretrain.schedule import learning_rate


@dataclass(frozen=True)
class TrainingRun:
    """One pretraining run. `resume` is `auto` (continue what is in `out`), `never`, or a checkpoint's path."""

    recipe: Recipe
    differs: tuple[str, ...]
    data: Path
    out: Path
    seed: int
    device: torch.device
    precision: str
    num_workers: int
    resume: str = "auto"
    keep_every: int = 0
    command: tuple[str, ...] = ()


def pretrain(run: TrainingRun) -> Path:
    """Run, or continue, pretraining; return the path of the last checkpoint.

    Raises:
        UserError: bad data, an unusable resume, or a loss that is not finite (the last checkpoint is kept).
    """
    require_one_process()
    recipe = run.recipe
    paths = training_images(run.data)
    loader, batches = make_loader(paths, recipe, seed=run.seed, num_workers=run.num_workers)
    model, optimizer = make_model(run)
    last = run.out / LAST
    start = _resume(run, model, optimizer)
    if start >= recipe.epochs:
        return last
    reset_peak_memory(run.device)
    code = code_version()  # before the run: the files may change while it lasts
    log = MetricsLog(run.out, first_epoch=start)
    per_epoch = len(loader) * recipe.batch_size
    bar = progress(total=recipe.epochs * per_epoch, done=start * per_epoch, label="pretrain", unit="image")
    started, earlier_seconds = time.monotonic(), log.seconds_so_far
    for epoch in range(start, recipe.epochs):
        batches.epoch = epoch
        rate = learning_rate(recipe, epoch)
        for group in optimizer.param_groups:
            group["lr"] = rate
        bar.set_description(f"epoch {epoch + 1}/{recipe.epochs}")
        metrics = train_epoch(run, model, optimizer, loader, bar, epoch=epoch)
        save_checkpoint(last, epoch=epoch + 1, recipe=recipe, seed=run.seed, model=model, optimizer=optimizer)
        if epoch + 1 == recipe.epochs or (run.keep_every and (epoch + 1) % run.keep_every == 0):
            with atomic_file(run.out / numbered(epoch + 1)) as temporary:
                shutil.copyfile(last, temporary)
        seconds = earlier_seconds + time.monotonic() - started
        log.write({"epoch": epoch + 1, "learning_rate": rate, **metrics, "wall_seconds": seconds})
        _write_run_record(run, paths, code=code, epochs_done=epoch + 1, wall_seconds=seconds)
    bar.close()
    log.close()
    return last


def require_one_process() -> None:
    """Refuse to run as one of several processes rather than train several models side by side.

    Raises:
        UserError: started under a launcher with more than one process.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world != 1:
        raise UserError(
            f"WORLD_SIZE={world}: expected one process, this version trains in one; start it without torchrun"
        )


def make_model(run: TrainingRun) -> tuple[MoCo, torch.optim.SGD]:
    """The model as the seed initialises it, on the run's device, with its optimizer."""
    recipe = run.recipe
    seed_everything(derive_seed(run.seed, "initialisation"))
    model = MoCo(
        arch=recipe.arch,
        mlp=recipe.mlp,
        dim=recipe.dim,
        queue_size=recipe.queue_size,
        key_momentum=recipe.key_momentum,
        temperature=recipe.temperature,
        bn_groups=recipe.bn_groups,
        zero_init_residual=recipe.zero_init_residual,
    )
    model = model.to(run.device).to(memory_format=torch.channels_last).train()
    # All parameters, the key encoder's too, as in the authors' code: those without a gradient are never stepped,
    # and the optimizer's state keeps the authors' numbering.
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )
    return model, optimizer


def _resume(run: TrainingRun, model: MoCo, optimizer: torch.optim.Optimizer) -> int:
    """Load what `run.resume` asks for; return the number of epochs done."""
    last = run.out / LAST
    if run.resume == "never" and last.exists():
        raise UserError(f"--resume never: {last} exists; choose another --out or remove that run")
    if run.resume not in ("auto", "never"):
        source = Path(run.resume)
        if not source.is_file():
            raise UserError(f"--resume {source}: expected auto, never or a checkpoint, found no such file")
        if last.exists() and source.resolve() != last.resolve():
            raise UserError(f"--resume {source}: {last} exists and would be overwritten; choose another --out")
    elif last.exists():
        source = last
    else:
        return 0
    return load_checkpoint(source, recipe=run.recipe, seed=run.seed, model=model, optimizer=optimizer)


def train_epoch(
    run: TrainingRun,
    model: MoCo,
    optimizer: torch.optim.Optimizer,
    loader: DataLoader[torch.Tensor | UserError],
    bar: "tqdm[Any]",
    *,
    epoch: int,
) -> dict[str, float]:
    """One pass over the images; returns the epoch's mean metrics.

    `accuracy` is the share of queries whose positive is the largest of the 1 + K logits, in percent.
    `embedding_spread` is the mean over dimensions of the queries' standard deviation times sqrt(C):
    about 1 for embeddings spread over the sphere, 0 when they have collapsed to a point.
    """
    normalise = _normaliser(run)
    sums: dict[str, float] = dict.fromkeys(("loss", "accuracy", "embedding_spread"), 0.0)
    shuffle = torch_generator(run.seed, "shuffle", epoch)
    waited, started = 0.0, time.monotonic()
    batches = iter(loader)
    for step in range(len(loader)):
        asked = time.monotonic()
        views = next(batches)
        if isinstance(views, UserError):
            raise views
        waited += time.monotonic() - asked
        queries, keys = normalise(views[:, 0]), normalise(views[:, 1])
        with autocast(run.device, run.precision):
            logits, q = model(queries, keys, torch.randperm(len(views), generator=shuffle).to(run.device))
        loss = contrastive_loss(logits)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        value = loss.item()
        if not torch.isfinite(loss):
            raise UserError(
                f"epoch {epoch + 1}, step {step + 1}: expected a finite loss, found {value}; "
                f"lower --learning-rate or use --precision fp32. The last checkpoint in {run.out} is untouched"
            )
        sums["loss"] += value
        sums["accuracy"] += 100 * (logits.argmax(dim=1) == 0).float().mean().item()
        sums["embedding_spread"] += q.detach().std(dim=0).mean().item() * q.shape[1] ** 0.5
        bar.set_postfix(loss=f"{value:.3f}", refresh=False)
        bar.update(run.recipe.batch_size)
    elapsed = time.monotonic() - started
    means = {name: total / len(loader) for name, total in sums.items()}
    rate = len(loader) * run.recipe.batch_size / elapsed
    return {**means, "images_per_second": rate, "data_wait_share": waited / elapsed}


def _normaliser(run: TrainingRun) -> Any:
    augmentation = run.recipe.augmentation
    mean = torch.tensor(augmentation.mean, device=run.device).view(3, 1, 1)
    std = torch.tensor(augmentation.std, device=run.device).view(3, 1, 1)

    def normalise(views: torch.Tensor) -> torch.Tensor:
        """uint8 (N, 3, S, S) on any device -> normalised float32 on the run's device."""
        images = views.to(run.device, non_blocking=True, memory_format=torch.channels_last)
        return (images.float() / 255 - mean) / std

    return normalise


class MetricsLog:
    """metrics.jsonl and TensorBoard; on a resume, lines past the checkpoint's epoch are dropped."""

    def __init__(self, out: Path, *, first_epoch: int) -> None:
        self.path = out / "metrics.jsonl"
        lines = self.path.read_text().splitlines() if first_epoch and self.path.exists() else []
        kept = [line for line in lines if json.loads(line)["epoch"] <= first_epoch]
        write_text(self.path, "".join(line + "\n" for line in kept))
        self.seconds_so_far: float = json.loads(kept[-1])["wall_seconds"] if kept else 0.0
        self.board = SummaryWriter(str(out), purge_step=first_epoch + 1)

    def write(self, metrics: dict[str, float]) -> None:
        """Append one epoch's metrics."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics) + "\n")
            file.flush()
            os.fsync(file.fileno())
        for name, value in metrics.items():
            if name != "epoch":
                self.board.add_scalar(f"pretrain/{name}", value, int(metrics["epoch"]))
        self.board.flush()

    def close(self) -> None:
        self.board.close()


def _write_run_record(
    run: TrainingRun, paths: tuple[Path, ...], *, code: dict[str, str], epochs_done: int, wall_seconds: float
) -> None:
    record = {
        "recipe": asdict(run.recipe),
        "differs": list(run.differs),
        "seed": run.seed,
        "data": {
            "name": run.data.resolve().name,
            "images": len(paths),
            "list_sha256": list_sha256(run.data / "train", paths),
        },
        "precision": run.precision,
        "num_workers": run.num_workers,
        "epochs_done": epochs_done,
        "wall_seconds": wall_seconds,
        "peak_memory_bytes": peak_memory_bytes(run.device),
        "code": code,
        "environment": environment_stamp(run.device),
        "command": list(run.command),
    }
    write_text(run.out / "run.json", json.dumps(record, indent=2) + "\n")
