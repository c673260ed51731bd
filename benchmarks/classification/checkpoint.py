"""What a run leaves in its folder to go on from after a kill, and how a run of other settings is refused."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.context import RunContext
from benchmarks.protocol import settings_of, show
from benchmarks.result import DataIdentity
from mocobench.runtime.distributed import gather_objects, is_main, world_size
from mocobench.runtime.errors import UserError
from mocobench.runtime.files import atomic_file, save_tensors
from transfer.backbone import Backbone


@dataclass(frozen=True)
class Checkpoints:
    """The last state of a run, in a file. Without a path nothing is kept.

    `run` says what the outcome is a function of; a state of another run is refused. `every` counts steps.
    """

    path: Path | None = None
    run: dict[str, str] | None = None
    resume: str = "auto"
    every: int = 1000

    def save(self, state: dict[str, Any]) -> None:
        """Replace the state by this one, of tensors, numbers and lists; on rank 0.

        Raises:
            UserError: the file cannot be written; the one before is untouched.
        """
        if self.path is None or not is_main():
            return
        with atomic_file(self.path) as temporary:
            save_tensors({"run": self.run, "state": state}, temporary)

    def load(self) -> dict[str, Any] | None:
        """The last state, on the CPU, or None when there is none.

        Raises:
            UserError: the state is of another run, or any when `resume` is `never`, or the ranks see different ones.
        """
        if self.path is None:
            return None
        if is_main():
            for half_written in self.path.parent.glob(f".{self.path.name}.*.tmp"):  # by a process that was killed
                half_written.unlink()
        state = self._read() if self.path.exists() else None
        seen = gather_objects(state and (state["epoch"], state["step"]))
        if len(set(seen)) > 1:
            raise UserError(
                f"{self.path.parent}: expected a folder that all processes share, found different files in it"
            )
        return state

    def _read(self) -> dict[str, Any]:
        assert self.path is not None
        assert self.run is not None
        if self.resume == "never":
            raise UserError(f"--resume never: {self.path} exists; choose another --out or remove that run")
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            there, state = dict(content["run"]), dict(content["state"])
        except Exception as error:
            raise UserError(
                f"{self.path}: expected what `mocobench bench` wrote, found {type(error).__name__}; use another --out"
            ) from error
        sizes = there.get("feature_size"), self.run.get("feature_size")
        if sizes[0] != sizes[1]:
            raise UserError(
                f"{self.path}: expected a classifier of {sizes[1]} features, as many as the backbone has, found one of "
                f"{sizes[0]}; go on with the backbone that it was trained on, or use another --out"
            )
        differs = [
            f"{name} {there.get(name, 'unset')} there, {self.run.get(name, 'unset')} asked"
            for name in sorted(there.keys() | self.run.keys())
            if there.get(name) != self.run.get(name)
        ]
        if differs:
            raise UserError(
                f"{self.path}: expected a run of the same settings, found {'; '.join(differs)}; use another --out"
            )
        return state


def checkpoints_of(
    name: str, backbone: Backbone, data: DataIdentity, protocol: Any, context: RunContext
) -> Checkpoints:
    """Those of a run, in a file of that name in `context.out`."""
    if context.out is None:
        return Checkpoints()
    lists = {f"{split} list": f"{found.images} images, {found.list_sha256}" for split, found in data.splits.items()}
    run = {
        "feature_size": str(backbone.feature_size),
        "backbone": backbone.digest,
        "seed": str(context.seed),
        "device": context.device.type,
        "precision": context.precision,
        "processes": str(world_size()),
        **lists,
        "protocol": protocol.id,
        **{name: show(value) for name, value in settings_of(protocol).items()},
    }
    return Checkpoints(context.out / name, run, context.resume, context.checkpoint_every)
