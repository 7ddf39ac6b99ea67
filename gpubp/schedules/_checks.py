"""Numbers that users give a schedule: checked, and as plain Python numbers."""

from __future__ import annotations

import math
from numbers import Integral, Real

from gpubp.errors import InputError

MOST = 2**62 - 1  # keeps sums of steps inside int64


def show(value: object) -> str:
    """`value` for an error message: one line, not long."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python prints no integer of more than 4,300 digits
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= 80 else text[:80] + "..."


def checked_number(value: object, what: str, low: float, high: float, *, above_low: bool = False) -> float:
    """`value` as a Python float in [low, high], or in (low, high]."""
    try:
        result = math.nan if isinstance(value, bool) or not isinstance(value, Real) else float(value)
    except OverflowError:
        result = math.inf
    if not (low < result <= high if above_low else low <= result <= high):
        expected = f"{low:g} {'<' if above_low else '<='} {what.split()[-1]} <= {high:g}"
        raise InputError(f"{what}: expected {expected}; got {show(value)}; choose a number in that range")
    return result


def checked_integer(value: object, what: str, low: int) -> int:
    """`value` as a Python int in [low, 2^62)."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= int(value) <= MOST:
        raise InputError(
            f"{what}: expected an integer >= {low}, below 2^62; got {show(value)}; count whole steps"
        )
    return int(value)
