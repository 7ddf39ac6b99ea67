"""What an expression must be before anything is trained with it: defined everywhere, with the right derivative."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.errors import InputError
from gpubp.scalar import Value, constants, evaluate, probes

Points = dict[str, npt.NDArray[np.float64]]  # for each symbol

_NEAR = 10.0  # where a function and its derivative are finite; beyond it they may overflow
_FAR = 40.0  # the size of outputs and targets up to which a loss is defined: exp of their difference is a float32
_EPS = 1e-4  # of central differences, whose error is taken out to the fourth order
_TOLERANCE = 1e-6  # of the derivative, absolute and relative


def line(*expressions: Value) -> Points:
    """Numbers of every size up to 1e4, and both sides of every kink of these expressions of x."""
    return {"x": probes([c for e in expressions for c in constants(e)])}


def plane(outputs: tuple[float, float], targets: tuple[float, float]) -> Points:
    """Outputs a and targets y up to 40 within these bounds; targets may lie on theirs."""
    a, y = (
        side.ravel() for side in np.meshgrid(_within(*outputs, inside=True), _within(*targets, inside=False))
    )
    return {"a": a, "y": y}


def _within(low: float, high: float, *, inside: bool) -> npt.NDArray[np.float64]:
    if math.isfinite(low) and math.isfinite(high):
        found = np.linspace(low, high, 23)
    else:
        sizes = np.concatenate(
            [[0.0], np.logspace(-4, 0, 9), np.arange(1.0, 8.0), np.linspace(0.13, _FAR, 25)]
        )
        base = low if math.isfinite(low) else high if math.isfinite(high) else 0.0
        found = np.concatenate([base - sizes, base + sizes])
    keep = (found > low) & (found < high) if inside else (found >= low) & (found <= high)
    return np.unique(found[keep])


def check_defined(root: Value, points: Points, what: str) -> None:
    """InputError where the expression is NaN, or infinite although every argument is at most 10, in either dtype."""
    near = np.all([np.abs(values) <= _NEAR for values in points.values()], axis=0)
    for dtype in (np.float64, np.float32):
        values = evaluate(root, points, dtype)
        bad = np.isnan(values) | (np.isinf(values) & near)
        if bad.any():
            sizes = np.sum([np.abs(values) for values in points.values()], axis=0)
            k = min(map(int, np.flatnonzero(bad)), key=lambda i: (0 < sizes[i] < 0.01, sizes[i]))
            at = _at(points, k)
            cure = "define it there: sqrt(maximum(x, 0)), abs(x), where(x > 0, a, b)"
            if not near[k]:
                cure = "let nothing overflow on the way: tanh, sigmoid, softplus, expm1 do not"
            raise InputError(
                f"{what}: expected a number everywhere; got {values[k]:g} for {at} in {np.dtype(dtype).name}; {cure}"
            )


def check_derivative(f: Value, slope: Value, by: str, points: Points, what: str, cure: str) -> None:
    """InputError, with both numbers, where `slope` is not the derivative of f by the symbol `by`.

    Central differences in float64, extrapolated; what differs between their steps is allowed. A point at a kink, where
    the slopes to the left and to the right differ, is left out.
    """
    near = np.all([np.abs(values) <= _NEAR for values in points.values()], axis=0)
    at = {name: values[near] for name, values in points.items()}

    def moved(step: float) -> Any:
        return evaluate(f, at | {by: at[by] + step})

    with np.errstate(all="ignore"):
        half, full = ((moved(e) - moved(-e)) / (2 * e) for e in (_EPS / 2, _EPS))
        numeric, analytic = (4 * half - full) / 3, evaluate(slope, at)
        middle = evaluate(f, at)
        left, right = (middle - moved(-_EPS / 2)) / (_EPS / 2), (moved(_EPS / 2) - middle) / (_EPS / 2)
        kink = np.abs(right - left) > 1e-2 * (1 + np.abs(numeric))
        allowed = _TOLERANCE * (1 + np.abs(numeric)) + np.abs(half - full) + 1e-14 * np.abs(middle) / _EPS
        error = np.where(kink | ~np.isfinite(numeric), 0.0, np.abs(numeric - analytic))
    wrong = error > allowed
    if wrong.any():
        plain = np.all([np.abs(values) < 3 for values in at.values()], axis=0) & wrong
        k = int(np.argmax(np.where(plain if plain.any() else wrong, error, 0.0)))
        raise InputError(
            f"{what}: expected a derivative near {numeric[k]:.7g} for {_at(at, k)}, by central differences; got "
            f"{analytic[k]:.7g}; {cure}"
        )


def _at(points: Points, k: int) -> str:
    return ", ".join(f"{name} = {values[k]:.6g}" for name, values in points.items())
