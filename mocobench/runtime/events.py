"""TensorBoard's events, written at once and by whoever asks for it: the error of a full disk comes there."""

import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mocobench.runtime.files import writes_to

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event


class EventFile:
    """The scalars of one session, in a file of its own in `folder`.

    With `first_step`, what other files there have from that step on is no longer shown.

    Raises:
        UserError: the file cannot be written; from `write` too.
    """

    def __init__(self, folder: Path, *, first_step: int | None = None) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        # TensorBoard reads the files of a folder in the order of their names.
        self.path = folder / f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        events = [Event(wall_time=time.time(), file_version="brain.Event:2")]
        if first_step is not None:
            start = SessionLog(status=SessionLog.START)
            events.append(Event(wall_time=time.time(), step=first_step, session_log=start))
        self._append(*events)

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Append the scalars of a step, by name."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=float(value)) for name, value in scalars.items()]
        self._append(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def _append(self, *events: "Event") -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        with writes_to(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                for event in events:
                    RecordWriter(file).write(event.SerializeToString())
