"""The loss curve as it grows: metrics.jsonl, one line a point, and TensorBoard events."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from mocobench.runtime.distributed import is_main
from mocobench.runtime.files import write_text


class CurveLog:
    """Writes the points in a folder, on rank 0; `earlier` are those of the run that is continued.

    Points later than those, left behind by a run that was stopped, are dropped.
    """

    def __init__(self, out: Path | None, earlier: Iterable[dict[str, float]] = ()) -> None:
        self.path = out / "metrics.jsonl" if out is not None and is_main() else None
        if self.path is None:
            return
        from torch.utils.tensorboard import SummaryWriter

        points = list(earlier)
        write_text(self.path, "".join(json.dumps(point) + "\n" for point in points))
        last = int(points[-1]["iteration"]) if points else 0
        self.board = SummaryWriter(str(self.path.parent), purge_step=last + 1)

    def write(self, point: dict[str, float]) -> None:
        """Append a point: its `iteration`, and values by name."""
        if self.path is None:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(point) + "\n")
            file.flush()
            os.fsync(file.fileno())
        for name, value in point.items():
            if name != "iteration":
                self.board.add_scalar(f"train/{name}", value, int(point["iteration"]))
        self.board.flush()

    def close(self) -> None:
        """No more points."""
        if self.path is not None:
            self.board.close()
