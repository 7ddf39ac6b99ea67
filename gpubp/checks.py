"""Checks of single arguments, which every room makes alike."""

from __future__ import annotations

import math
import operator
from numbers import Real
from typing import Any

from .errors import InputError


def positive(value: Any, name: str, cure: str = "") -> int:
    """`value` as an integer of at least 1, NumPy's too; InputError otherwise."""
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        hint = f"; {cure}" if cure else ""
        raise InputError(f"{name}: expected an integer of at least 1; got {value!r}{hint}")
    return number


def real_number(value: Any) -> float:
    """A real number, NumPy's too, as a float; NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan
