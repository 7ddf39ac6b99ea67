"""The numbers that options take: what each may be, and what is said of any other."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any


def _checked(text: str, kind: Callable[[str], Any], good: Callable[[Any], bool], expected: str) -> Any:
    try:
        value = kind(text)
        if good(value):
            return value
    except (ValueError, OverflowError):
        pass
    raise argparse.ArgumentTypeError(f"expected {expected}; got {text!r}")


def count(text: str) -> int:
    """An integer of at least 1."""
    return int(_checked(text, int, lambda n: 1 <= n < 2**62, "an integer of at least 1"))


def count_or_none(text: str) -> int:
    """An integer from 0 to 1,000."""
    return int(_checked(text, int, lambda n: 0 <= n <= 1000, "an integer from 0 to 1000"))


def seed(text: str) -> int:
    """An integer of at least 0."""
    return int(_checked(text, int, lambda n: n >= 0, "an integer of at least 0"))


def above_zero(text: str) -> float:
    """A finite number above 0."""
    return float(_checked(text, float, lambda v: 0 < v < math.inf, "a number above 0"))


def at_least_zero(text: str) -> float:
    """A finite number of at least 0."""
    return float(_checked(text, float, lambda v: 0 <= v < math.inf, "a number of at least 0"))


def fraction(text: str) -> float:
    """A share of the rows."""
    return float(_checked(text, float, lambda v: 0 <= v < 1, "a share of the rows, at least 0 and below 1"))


def rates(text: str) -> list[float]:
    """Rates of dropout, at least 0 and below 1: one, or several separated by commas."""
    expected = "rates of at least 0 and below 1 separated by commas, or one for all, such as 0.2"
    parts = text.split(",")
    return [float(_checked(part, float, lambda v: 0 <= v < 1, f"{expected}, in {text!r}")) for part in parts]


def rate(text: str) -> float:
    """A rate, at least 0 and below 1."""
    return float(_checked(text, float, lambda v: 0 <= v < 1, "a rate of at least 0 and below 1"))


def widths(text: str) -> list[int]:
    """Layer widths separated by commas; "none" for no layer."""
    if text.strip().lower() in ("", "none"):
        return []
    expected = "widths of at least 1 separated by commas, such as 512,512"
    parts = text.split(",")
    return [int(_checked(part, int, lambda n: 1 <= n < 2**31, f"{expected}, in {text!r}")) for part in parts]


def group(text: str) -> list[Any]:
    """[pattern, {name: number}] of a group of parameters; the library checks pattern and names."""
    expected = "a pattern and numbers such as *.b:weight_decay=0,lr_factor=2"
    pattern, _, numbers = text.rpartition(":")
    if not pattern:
        raise argparse.ArgumentTypeError(f"expected {expected}; got {text!r}")
    found: dict[str, float] = {}
    for part in numbers.split(","):
        name, _, number = part.partition("=")
        found[name.strip()] = float(
            _checked(number, float, lambda v: 0 <= v < math.inf, f"{expected}, in {text!r}")
        )
    return [pattern, found]
