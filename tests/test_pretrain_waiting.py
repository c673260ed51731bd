"""The time that a device waits for data: on a CPU the loop's, on a GPU its own, here that of a made-up stream."""

from collections.abc import Iterator

import pytest
import torch

from pretrain.waiting import DataWait


class Event:
    seconds = 0.0

    def __init__(self, *, enable_timing: bool) -> None:
        assert enable_timing

    def elapsed_time(self, other: "Event") -> float:
        return 1000 * (other.seconds - self.seconds)


class Stream:
    def __init__(self, seconds: Iterator[float]) -> None:
        self._seconds = seconds

    def record_event(self, event: Event) -> Event:
        event.seconds = next(self._seconds)
        return event


def test_a_cpu_waits_as_long_as_the_loop() -> None:
    wait = DataWait(torch.device("cpu"))
    for seconds in (0.5, 0.25):
        waited = wait.step_begins(seconds)
        wait.work_ends()
        assert waited() == seconds


def test_a_gpu_waits_from_the_end_of_its_work_to_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of 10 s end at 10, 20 and 37, the last saved until 40; the batches come while it is at work, then late."""
    stream = Stream(iter([10.0, 10.0, 20.0, 27.0, 37.0, 40.0, 41.0]))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    wait = DataWait(torch.device("cuda"))
    asked = [wait.step_begins(1.0)]
    for _ in range(2):
        wait.work_ends()
        asked.append(wait.step_begins(9.0))
    wait.work_ends()
    wait.work_ends()  # after a checkpoint
    asked.append(wait.step_begins(9.0))
    assert [waited() for waited in asked] == [1.0, 0.0, 7.0, 1.0]
