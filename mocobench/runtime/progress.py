"""What a run says on its way, on rank 0 alone: lines, and how far it is, with a rate and a remaining time.

How far it is stands on standard error: in a terminal as a bar, elsewhere (the log of a scheduler's job) as a line a
minute, none for what is done sooner.
"""

import io
import sys
import time
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

from mocobench.runtime.distributed import is_main

SECONDS_BETWEEN_LINES = 60
BAR_WITHOUT_BAR = "{l_bar} {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


def progress(
    steps: Iterable[Any] | None = None, *, total: int | None = None, done: int = 0, label: str, unit: str
) -> "tqdm[Any]":
    """A bar over `steps` (or to be advanced by hand, from `done` to `total`).

    Use `bar.set_postfix(loss=...)` for what changes from step to step.
    """
    in_terminal = sys.stderr.isatty()
    return tqdm(
        steps,
        total=total,
        initial=done,
        desc=label,
        unit=unit,
        dynamic_ncols=in_terminal,
        disable=not is_main(),
        file=None if in_terminal else _LineAMinute(sys.stderr),
        bar_format=None if in_terminal else BAR_WITHOUT_BAR,
    )


class _LineAMinute(io.StringIO):
    """Takes all that a bar writes to draw itself over and over, and passes one drawing a minute to `log`, as a line."""

    def __init__(self, log: TextIO) -> None:
        super().__init__()
        self.log, self.last = log, time.monotonic()

    def write(self, text: str) -> int:
        line = text.strip()
        if line and time.monotonic() - self.last >= SECONDS_BETWEEN_LINES:
            self.last = time.monotonic()
            print(line, file=self.log, flush=True)
        return len(text)


def say(line: str) -> None:
    """Print a line at once, on rank 0 alone; a bar that is shown stays below it."""
    if is_main():
        tqdm.write(line)
        sys.stdout.flush()
