"""How far a run is, in the log of a job that has no terminal: a line a minute, and none for what is done sooner."""

import pytest

from mocobench.runtime import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, to be set by hand."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_a_minute(clock: list[float], capfd: pytest.CaptureFixture[str]) -> None:
    bar = progress.progress(total=1000, done=100, label="epoch 1/2", unit="image")
    for clock[0] in (20.0, 59.0, 60.0, 61.0, 119.0, 121.0, 180.0):
        bar.set_postfix(seconds=clock[0])
    bar.update(900)
    bar.close()
    first, second = capfd.readouterr().err.splitlines()
    assert [line.partition("[")[0] for line in (first, second)] == ["epoch 1/2:  10%| 100/1000 "] * 2
    assert [line.rpartition("seconds=")[2] for line in (first, second)] == ["60]", "121]"]


def test_a_log_says_nothing_of_what_takes_less(clock: list[float], capfd: pytest.CaptureFixture[str]) -> None:
    assert list(progress.progress(range(3), label="quick", unit="step")) == [0, 1, 2]
    assert capfd.readouterr() == ("", "")


def test_lines_count_what_has_no_known_end(clock: list[float], capfd: pytest.CaptureFixture[str]) -> None:
    bar = progress.progress(label="shards", unit="image")
    bar.update(7)
    clock[0] = 60.0
    bar.refresh()
    assert capfd.readouterr().err.startswith("shards: | 7/? [")
    bar.close()
