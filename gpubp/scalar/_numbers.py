"""Numbers for an expression: its value at arrays of x, and the x at which something may happen to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ._simplify import number
from ._value import OPS, Value, history

Numbers = npt.NDArray[np.float64]

_HALVINGS = 64  # of an interval, until its ends are neighbours
_MOST_CROSSINGS = 4096  # that are looked at: what oscillates has one between any two numbers


def evaluate(root: Value, inputs: dict[str, Any], dtype: Any = np.float64) -> Any:
    """The numbers of an expression whose symbols have these arrays, each result rounded to dtype."""
    return evaluate_all([root], inputs, dtype)[0]


def evaluate_all(roots: Sequence[Value], inputs: dict[str, Any], dtype: Any = np.float64) -> list[Any]:
    """Those of several expressions, whose common parts are computed once."""
    found: dict[int, Any] = {}
    with np.errstate(all="ignore"):
        for v in history(*roots):
            if v.op == "symbol":
                result = inputs[v.label]
            elif v.op == "constant":
                result = v.data
            else:
                result = OPS[v.op].number(*(found[id(parent)] for parent in v.parents))
            found[id(v)] = np.asarray(result, dtype)
    shape = np.broadcast_shapes(*(np.shape(value) for value in inputs.values()))
    return [np.broadcast_to(found[id(root)], shape) for root in roots]


def constants(root: Value) -> list[float]:
    """The places where an expression may have a kink: what is compared with a constant."""
    found: set[float] = set()
    for v in history(root):
        if v.op == "where":
            found.update(c for c in map(number, v.parents[:2]) if c is not None and math.isfinite(c))
    return sorted(found)


def probes(breaks: Sequence[float]) -> Numbers:
    """Numbers of every size up to 1e4, every quarter up to 100, and the neighbours of `breaks`."""
    sizes = np.logspace(-12, 4, 65)
    plain = np.concatenate([np.linspace(-10, 10, 401), np.linspace(-100, 100, 801), sizes, -sizes])
    near = [np.nextafter(c, side) for c in (0.0, *breaks) for side in (-np.inf, np.inf)]
    wider = [c + s * 1e-6 * max(1.0, abs(c)) for c in (0.0, *breaks) for s in (-1, 1)]
    return np.unique(np.concatenate([plain, np.array([*near, *wider, 0.0, *breaks])]))


def crossings(roots: Sequence[Value], x: Numbers) -> Numbers:
    """The neighbouring numbers between which a divisor, a root's or logarithm's argument is 0, or a choice changes.

    In ascending order, where that happens once between two neighbours of x: found by bisection of a change of sign.
    """
    watched = _watched(roots)
    if not watched:
        return np.empty(0)
    above = np.array(evaluate_all(watched, {"x": x})) > 0
    which, at = np.nonzero(above[:, 1:] != above[:, :-1])
    every = 1 + which.size // _MOST_CROSSINGS
    which, at = which[::every], at[::every]
    low, high, side = x[at], x[at + 1], above[which, at]
    for _ in range(_HALVINGS):
        middle = low + (high - low) / 2
        same = (np.array(evaluate_all(watched, {"x": middle}))[which, np.arange(which.size)] > 0) == side
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    return np.unique(np.concatenate([low, high]))


def _watched(roots: Sequence[Value]) -> list[Value]:
    """What must not be 0 in these expressions, in its factors, and what their choices compare, as differences."""
    stack: list[Value] = []
    for v in history(*roots):
        if v.op in ("log", "sqrt", "pow"):
            stack.append(v.parents[0])
        elif v.op == "log1p":
            stack.append(Value.of("add", v.parents[0], 1.0))
        elif v.op == "div":
            stack.append(v.parents[1])
        elif v.op == "where":
            stack.append(Value.of("sub", *v.parents[:2]))
    found: dict[int, Value] = {}
    while stack:
        v = stack.pop()
        if v.op in ("mul", "abs", "sqrt", "neg"):  # x * x is 0 without a change of sign, x is not
            stack += v.parents
        elif v.parents or v.op == "symbol":
            found[id(v)] = v
    return list(found.values())
