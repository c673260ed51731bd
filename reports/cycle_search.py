"""Pause Python's search for unused cycles of objects while thousands of records are in memory.

The search goes through all of them again and again; records hold no cycles, so it would find nothing.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused_cycle_search() -> Iterator[None]:
    """Pause it for a block, or for each call of a function that this decorates."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
