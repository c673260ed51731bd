"""Checkpoints in the key layout of the authors' code, written so that a kill at any moment leaves a whole one.

`{epoch, arch, state_dict: {module.encoder_q.*, module.encoder_k.*, module.queue, module.queue_ptr}, optimizer}`
and, under the one further key `mocobench`, what a resume and a reader of the weights need besides.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mocobench.runtime.errors import UserError
from mocobench.runtime.files import atomic_file
from pretrain.moco import MoCo
from pretrain.recipes import Recipe

PREFIX = "module."  # the authors' code saves the state of DistributedDataParallel
LAST = "checkpoint_last.pth.tar"


def numbered(epoch: int) -> str:
    """File name of the checkpoint after `epoch` epochs."""
    return f"checkpoint_{epoch:04d}.pth.tar"


def save_checkpoint(
    path: Path, *, epoch: int, recipe: Recipe, seed: int, model: MoCo, optimizer: torch.optim.Optimizer
) -> None:
    """Write the state after `epoch` whole epochs."""
    augmentation = recipe.augmentation
    content = {
        "epoch": epoch,
        "arch": recipe.arch,
        "state_dict": {PREFIX + name: tensor for name, tensor in model.state_dict().items()},
        "optimizer": optimizer.state_dict(),
        "mocobench": {
            "recipe": asdict(recipe),
            "seed": seed,
            "input": {"mean": list(augmentation.mean), "std": list(augmentation.std)},
        },
    }
    with atomic_file(path) as temporary:
        torch.save(content, temporary)


def load_checkpoint(path: Path, *, recipe: Recipe, seed: int, model: MoCo, optimizer: torch.optim.Optimizer) -> int:
    """Restore a run in place and return the number of epochs it has behind it.

    Raises:
        UserError: not a checkpoint of this program, or one of another recipe or seed; what differs is listed.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        ours = content["mocobench"]
        found = {**_flat(ours["recipe"]), "seed": ours["seed"]}
    except Exception as error:
        raise UserError(
            f"{path}: expected a checkpoint that `mocobench pretrain` wrote, found {type(error).__name__}; "
            "choose another --resume or another --out"
        ) from error
    asked = {**_flat(asdict(recipe)), "seed": seed}
    differs = [
        f"{key} {found.get(key)!r} there, {value!r} asked" for key, value in asked.items() if found.get(key) != value
    ]
    if differs:
        raise UserError(f"{path}: expected a run of the same settings, found {'; '.join(differs)}; use another --out")
    model.load_state_dict({name.removeprefix(PREFIX): tensor for name, tensor in content["state_dict"].items()})
    optimizer.load_state_dict(content["optimizer"])
    return int(content["epoch"])


def _flat(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe with its augmentation's values beside the others."""
    settings = {key: value for key, value in recipe.items() if key != "augmentation"}
    return settings | {f"augmentation.{key}": value for key, value in recipe["augmentation"].items()}
