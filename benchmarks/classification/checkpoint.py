"""What a run leaves in its folder to go on from after a kill."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.context import RunContext
from benchmarks.result import DataIdentity
from benchmarks.run_folder import describe_run, read_own
from mocobench.runtime.distributed import gather_objects, is_main
from mocobench.runtime.errors import UserError
from mocobench.runtime.files import atomic_file, save_tensors
from transfer.backbone import Backbone


@dataclass(frozen=True)
class Checkpoints:
    """The last state of a run, in a file. Without a path nothing is kept.

    `run` says what the outcome is a function of; a state of another run is refused. `every` counts steps.
    """

    path: Path | None = None
    run: dict[str, str] = field(default_factory=dict)
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
        state = read_own(self.path, _read, self.run, resume=self.resume) if self.path.exists() else None
        seen = gather_objects(state and (state["epoch"], state["step"]))
        if len(set(seen)) > 1:
            raise UserError(
                f"{self.path.parent}: expected a folder that all processes share, found different files in it"
            )
        return state


def _read(path: Path) -> tuple[dict[str, str], dict[str, Any]]:
    content = torch.load(path, map_location="cpu", weights_only=True)
    return dict(content["run"]), dict(content["state"])


def checkpoints_of(
    name: str, backbone: Backbone, data: DataIdentity, protocol: Any, context: RunContext
) -> Checkpoints:
    """Those of a run, in a file of that name in `context.out`."""
    if context.out is None:
        return Checkpoints()
    run = describe_run(backbone, protocol, context, data)
    return Checkpoints(context.out / name, run, context.resume, context.checkpoint_every)
