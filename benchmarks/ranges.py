"""Ranges of a protocol's settings: checked where it is made, so that a bad value is an error before any work."""

import math
from collections.abc import Callable
from typing import Any, NoReturn

from benchmarks.protocol import show
from mocobench.runtime.errors import UserError


def refuse(protocol: Any, name: str, expected: str) -> NoReturn:
    """The error of a setting that is out of its range.

    Raises:
        UserError: always.
    """
    raise UserError(f"--{name.replace('_', '-')} {show(getattr(protocol, name))}: expected {expected}")


def require_above_zero(protocol: Any, *names: str) -> None:
    """Each is a finite number above 0, or a tuple of one or more such."""
    _require(protocol, names, "above 0", lambda value: 0 < value < math.inf)


def require_from_zero(protocol: Any, *names: str) -> None:
    """Each is 0 or a finite number above it, or a tuple of one or more such."""
    _require(protocol, names, "from 0 on", lambda value: 0 <= value < math.inf)


def _require(protocol: Any, names: tuple[str, ...], where: str, holds: Callable[[float], bool]) -> None:
    for name in names:
        value = getattr(protocol, name)
        values, numbers = (value, "one or more numbers") if isinstance(value, tuple) else ((value,), "a number")
        if not values or not all(holds(each) for each in values):
            refuse(protocol, name, f"{numbers} {where}")


def require_fraction(protocol: Any, *names: str) -> None:
    """Each is from 0 to 1."""
    for name in names:
        if not 0 <= getattr(protocol, name) <= 1:
            refuse(protocol, name, "a fraction from 0 to 1")


def require_bounds(protocol: Any, *names: str) -> None:
    """Each is two numbers above 0, the lower first."""
    for name in names:
        bounds = getattr(protocol, name)
        if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] < math.inf:
            refuse(protocol, name, "two bounds LOW,HIGH above 0")


def require_rising(protocol: Any, *names: str) -> None:
    """Each is a tuple of numbers above 0, each larger than the one before, or of none."""
    for name in names:
        values = getattr(protocol, name)
        if not all(before < after for before, after in zip((0, *values), values, strict=False)):
            refuse(protocol, name, "numbers above 0, each larger than the one before, or none")


def require_splits(protocol: Any) -> None:
    """`train_splits` and `test_splits` each name one or more."""
    for name in ("train_splits", "test_splits"):
        if not all(getattr(protocol, name) or [""]):
            refuse(protocol, name, "one or more names of splits")


def require_one_of(protocol: Any, name: str, choices: tuple[str, ...]) -> None:
    """It is one of the choices."""
    if getattr(protocol, name) not in choices:
        refuse(protocol, name, f"one of {', '.join(choices)}")


def require_crop_fits(protocol: Any) -> None:
    """`image_size`, cropped from the centre, is at most `test_resize`."""
    if protocol.image_size > protocol.test_resize:
        refuse(protocol, "image_size", f"at most --test-resize {protocol.test_resize}, whose centre is cropped")
