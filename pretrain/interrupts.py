"""Interrupts wait for the end of what must not be left half done, so that a run can be saved when one comes."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Raise the KeyboardInterrupt of a signal that comes inside at the end; a second signal raises it at once.

    Only for the signals that raise it anyway, and in the main thread, where they arrive.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []

    def wait(number: int, frame: FrameType | None) -> None:
        if waiting:
            signal.default_int_handler(number, frame)
        waiting.append(number)

    ours = [number for number in SIGNALS if signal.getsignal(number) is signal.default_int_handler]
    for number in ours:
        signal.signal(number, wait)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.default_int_handler)
    if waiting:
        raise KeyboardInterrupt
