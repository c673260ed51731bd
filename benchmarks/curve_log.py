"""The loss curve as it grows: a file of one line a point, and TensorBoard events.

Its name is that of what is trained, as a checkpoint's is, and none that pretraining uses.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from mocobench.runtime.distributed import is_main
from mocobench.runtime.events import EventFile
from mocobench.runtime.files import append_text, write_text


class CurveLog:
    """Writes the points in a file, on rank 0; `earlier` are those of the run that is continued.

    Points later than those, left behind by a run that was stopped, are dropped.
    """

    def __init__(self, out: Path | None, name: str, earlier: Iterable[dict[str, float]] = ()) -> None:
        self.path = out / name if out is not None and is_main() else None
        if self.path is None:
            return
        points = list(earlier)
        write_text(self.path, "".join(json.dumps(point) + "\n" for point in points))
        last = int(points[-1]["iteration"]) if points else 0
        self.events = EventFile(self.path.parent, first_step=last + 1)

    def write(self, point: dict[str, float]) -> None:
        """Append a point: its `iteration`, and values by name.

        Raises:
            UserError: it cannot be written.
        """
        if self.path is None:
            return
        append_text(self.path, json.dumps(point) + "\n")
        scalars = {f"train/{name}": value for name, value in point.items() if name != "iteration"}
        self.events.write(int(point["iteration"]), scalars)
