"""Checkpoints in the key layout of the authors' code, written so that a kill at any moment leaves a whole one.

`{epoch, arch, state_dict: {module.encoder_q.*, module.encoder_k.*, module.queue, module.queue_ptr}, optimizer}`
and, under the one further key `mocobench`, what a resume and a reader of the weights need besides.
"""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mocobench.runtime.errors import UserError
from mocobench.runtime.files import atomic_file, save_tensors
from pretrain.run import Progress, TrainingRun, describe

PREFIX = "module."  # the authors' code saves the state of DistributedDataParallel
LAST = "checkpoint_last.pth.tar"
PREVIOUS = "checkpoint_previous.pth.tar"


def save_checkpoint(
    run: TrainingRun,
    *,
    data: dict[str, Any],
    progress: Progress,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    number: int | None = None,
) -> None:
    """Write the state as the last checkpoint; what was the last one before becomes the previous one.

    With `number`, a copy named after that many epochs is kept too.

    Raises:
        UserError: a weight is not finite, or the file cannot be written; the checkpoint before is untouched.
    """
    last = run.out / LAST
    state = model.state_dict()
    spoilt = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if spoilt:
        step = f"epoch {progress.epoch + 1}, step {progress.step}"
        place = step if progress.step else f"after epoch {progress.epoch}"
        raise UserError(
            f"{place}: expected finite weights, found {len(spoilt)} tensors "
            f"that are not, {spoilt[0]} first; lower --learning-rate; checkpoints in {run.out} are untouched"
        )
    augmentation = run.recipe.augmentation
    ours = {
        **describe(run, data),
        "differs": list(run.differs),
        "input": {"mean": list(augmentation.mean), "std": list(augmentation.std)},
        "progress": asdict(progress),
    }
    content = {
        "epoch": progress.epoch,
        "arch": run.recipe.arch,
        "state_dict": {PREFIX + name: tensor for name, tensor in state.items()},
        "optimizer": optimizer.state_dict(),
        "mocobench": ours,
    }
    try:
        with atomic_file(last) as temporary:
            save_tensors(content, temporary)  # flushed here: between the renamings there is then no time to speak of
            if number is not None:
                with atomic_file(run.out / f"checkpoint_{number:04d}.pth.tar") as copy:
                    shutil.copyfile(temporary, copy)
            if last.exists():
                # A kill between this line and the last renaming leaves the previous one only; a resume looks for it.
                last.replace(run.out / PREVIOUS)
    except UserError as error:
        kept = last_checkpoint(run.out)
        rest = f"{kept.name} beside it is whole" if kept else "there is none before it"
        raise UserError(f"{error}; {rest}. Make room, then start the same command again") from error


def last_checkpoint(out: Path) -> Path | None:
    """The newest whole checkpoint of the run in `out`, if there is one."""
    return next((path for path in (out / LAST, out / PREVIOUS) if path.exists()), None)


def remove_halves(out: Path) -> None:
    """Remove what a kill in the middle of writing left."""
    for path in out.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def load_checkpoint(
    path: Path, run: TrainingRun, *, data: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer
) -> Progress:
    """Restore a run in place and return how far it is.

    Raises:
        UserError: not a checkpoint of this program, or one of another recipe, seed or data; what differs is listed.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        ours = content["mocobench"]
        found = _flat(ours)
        progress = Progress(**ours["progress"])
    except Exception as error:
        previous = path.with_name(PREVIOUS)
        other = f"--resume {previous}, " if path.name == LAST and previous.exists() else ""
        raise UserError(
            f"{path}: expected a checkpoint that `mocobench pretrain` wrote, found {type(error).__name__}; "
            f"choose {other}another --resume or another --out"
        ) from error
    asked = _flat(describe(run, data))
    differs = [
        f"{key} {found.get(key)!r} there, {value!r} asked" for key, value in asked.items() if found.get(key) != value
    ]
    if differs:
        raise UserError(f"{path}: expected a run of the same settings, found {'; '.join(differs)}; use another --out")
    model.load_state_dict({name.removeprefix(PREFIX): tensor for name, tensor in content["state_dict"].items()})
    optimizer.load_state_dict(content["optimizer"])
    return progress


def _flat(description: dict[str, Any]) -> dict[str, Any]:
    """A run's description with the recipe's, the augmentation's and the data's values side by side."""
    settings = {key: value for key, value in description["recipe"].items() if key != "augmentation"}
    augmentation = {f"augmentation.{key}": value for key, value in description["recipe"]["augmentation"].items()}
    data = {f"data.{key}": value for key, value in description["data"].items()}
    return {**settings, **augmentation, "seed": description["seed"], **data}
