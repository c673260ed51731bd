"""How long a device has nothing to do because its next batch is not there."""

from collections.abc import Callable

import torch


class DataWait:
    """The time between the end of a device's work and the beginning of the next step.

    A CPU waits as long as the loop that asks for the batch. A GPU may be at work on its last step all that while, so
    its times are those at which it comes to the events between its steps.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._end: torch.cuda.Event | None = None

    def step_begins(self, loop_waited: float) -> Callable[[], float]:
        """To be called with a batch that the loop waited for; what it returns tells, after the step, the seconds."""
        before = self._end
        if before is None:  # a CPU, or a GPU that has done nothing yet
            return lambda: loop_waited
        start = self._record()
        return lambda: before.elapsed_time(start) / 1000

    def work_ends(self) -> None:
        """To be called after a step, and after anything else that is done before the next one."""
        if self._device.type == "cuda":
            self._end = self._record()

    def _record(self) -> torch.cuda.Event:
        event: torch.cuda.Event = torch.cuda.current_stream(self._device).record_event(
            torch.cuda.Event(enable_timing=True)
        )
        return event
