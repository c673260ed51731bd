"""What a run of the embedded engine leaves in its folder to go on from: detector_last.pth, then model_final.pth.

Both have Detectron2's key `model`, and under `mocobench` what a resume needs besides. `detector_last.pth` has the
optimizer too; it is removed once `model_final.pth` is there, which is training's end, with precise statistics.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.run_folder import read_own
from mocobench.runtime.distributed import gather_objects, is_main
from mocobench.runtime.errors import UserError
from mocobench.runtime.files import atomic_file, save_tensors

LAST, FINAL, DETECTIONS = "detector_last.pth", "model_final.pth", "detections.jsonl"


@dataclass(frozen=True)
class Checkpoint:
    """A run after `iteration` whole iterations, or after all of training when `optimizer` is None.

    `curve` are the points of the loss curve, `since` the losses of the iterations after the last of them.
    """

    iteration: int
    model: dict[str, torch.Tensor]
    optimizer: dict[str, Any] | None
    curve: list[dict[str, float]]
    since: list[dict[str, float]]
    train_seconds: float

    @property
    def is_final(self) -> bool:
        return self.optimizer is None


def save_checkpoint(out: Path | None, run: dict[str, str], checkpoint: Checkpoint) -> None:
    """Write the checkpoint, whole or not at all; on rank 0, and only when there is a folder.

    Raises:
        UserError: the folder cannot be written.
    """
    if out is None or not is_main():
        return
    content = {
        "model": {name: tensor.cpu().contiguous() for name, tensor in checkpoint.model.items()},
        "mocobench": {
            "run": run,
            "iteration": checkpoint.iteration,
            "curve": checkpoint.curve,
            "since": checkpoint.since,
            "train_seconds": checkpoint.train_seconds,
        },
    }
    if not checkpoint.is_final:
        content["optimizer"] = checkpoint.optimizer
    else:
        (out / DETECTIONS).unlink(missing_ok=True)  # of another model
    with atomic_file(out / (FINAL if checkpoint.is_final else LAST)) as path:
        save_tensors(content, path)
    if checkpoint.is_final:
        (out / LAST).unlink(missing_ok=True)


def load_checkpoint(out: Path | None, run: dict[str, str], *, resume: str) -> Checkpoint | None:
    """The last checkpoint of this run in the folder, on the CPU; None when there is nothing to go on from.

    Raises:
        UserError: the folder holds another run, or any run when `resume` is `never`, or the ranks see different ones.
    """
    path = next((out / name for name in (FINAL, LAST) if (out / name).exists()), None) if out is not None else None
    found = read_own(path, _read, run, resume=resume) if path is not None else None
    seen = gather_objects(found and (found.iteration, found.is_final))
    if len(set(seen)) > 1:
        raise UserError(f"--out {out}: expected a folder that all processes share, found different files in it")
    return found


def _read(path: Path) -> tuple[dict[str, str], Checkpoint]:
    content = torch.load(path, map_location="cpu", weights_only=True)
    ours = dict(content["mocobench"])
    return ours.pop("run"), Checkpoint(model=content["model"], optimizer=content.get("optimizer"), **ours)
