"""What a run says on its way, on rank 0 alone: lines, and bars with a rate and a remaining time.

Bars only when standard error is a terminal.
"""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

from mocobench.runtime.distributed import is_main


def progress(
    steps: Iterable[Any] | None = None, *, total: int | None = None, done: int = 0, label: str, unit: str
) -> "tqdm[Any]":
    """A bar over `steps` (or to be advanced by hand, from `done` to `total`) on standard error.

    Use `bar.set_postfix(loss=...)` for what changes from step to step.
    """
    return tqdm(
        steps,
        total=total,
        initial=done,
        desc=label,
        unit=unit,
        dynamic_ncols=True,
        disable=not (sys.stderr.isatty() and is_main()),
    )


def say(line: str) -> None:
    """Print a line at once, on rank 0 alone; a bar that is shown stays below it."""
    if is_main():
        tqdm.write(line)
        sys.stdout.flush()
