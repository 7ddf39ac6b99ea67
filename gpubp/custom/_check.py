"""What an expression must be before anything is trained with it: defined everywhere, with the right derivative."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.errors import InputError
from gpubp.scalar import Value, constants, crossings, evaluate, evaluate_all, history, probes

Points = dict[str, npt.NDArray[np.float64]]  # for each symbol

_NEAR = 10.0  # where a function and its derivative are finite; beyond it they may overflow
_POLE = 1e6  # of opposite signs beside each other, both larger than this
_FAR = 40.0  # the size of outputs and targets up to which a loss is defined: exp of their difference is a float32
_EPS = 1e-4  # of central differences, whose error is taken out to the fourth order
_ROUNDING = 1e-14  # of f, relative to the largest of its terms
_TOLERANCE = 1e-6  # of the derivative, absolute and relative


def line(*expressions: Value) -> Points:
    """Numbers of every size up to 1e4, and both sides of every kink and pole of these expressions of x."""
    points = probes([c for e in expressions for c in constants(e)])
    return {"x": np.unique(np.concatenate([points, crossings(expressions, points)]))}


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
    """InputError where the expression, in either dtype, is NaN, has a pole, or is infinite for arguments up to 10."""
    near = np.all([np.abs(values) <= _NEAR for values in points.values()], axis=0)
    for dtype in (np.float64, np.float32):
        values = evaluate(root, points, dtype)
        poles = _poles(values, points)
        bad = np.isnan(values) | (np.isinf(values) & near) | poles
        if bad.any():
            sizes = np.sum([np.abs(values) for values in points.values()], axis=0)
            k = min(map(int, np.flatnonzero(bad)), key=lambda i: (0 < sizes[i] < 0.01, sizes[i]))
            at = _at(points, k)
            cure = "define it there: sqrt(maximum(x, 0)), abs(x), where(x > 0, a, b)"
            if not (near[k] or poles[k]) and _overflows(
                root, {name: v[k] for name, v in points.items()}, dtype
            ):
                cure = "let nothing overflow on the way: tanh, sigmoid, softplus, expm1 do not"
            raise InputError(
                f"{what}: expected a number everywhere; got {values[k]:g} for {at} in {np.dtype(dtype).name}; {cure}"
            )


def _poles(values: Any, points: Points) -> npt.NDArray[np.bool_]:
    """Where a function of x alone is infinite between finite numbers, or leaps from one large number to another.

    tan is finite at the two numbers beside its pole, which is none.
    """
    found = np.zeros(values.shape, bool)
    if len(points) == 1:
        (x,) = points.values()
        low, high, finite = values[:-1], values[1:], np.isfinite(values)
        beside = np.nextafter(x[:-1], np.inf) == x[1:]
        alone = np.isinf(values[1:-1]) & finite[:-2] & finite[2:]
        found[1:-1] = alone & (beside[:-1] | beside[1:])
        found[:-1] |= beside & (np.minimum(low, high) < -_POLE) & (np.maximum(low, high) > _POLE)
    return found


def _overflows(root: Value, at: dict[str, Any], dtype: Any) -> bool:
    return any(np.isinf(evaluate(part, at, dtype)) for part in history(root))


def check_derivative(f: Value, slope: Value, by: str, points: Points, what: str, cure: str) -> None:
    """InputError, with both numbers, where `slope` is not the derivative of f by the symbol `by`.

    Central differences in float64, extrapolated; what differs between their steps, which grow with the argument, and
    what rounding may leave of sums that cancel is allowed. A point at a kink, where the slopes to the left and to the
    right differ, is left out, and so is one where f overflows.
    """

    def moved(step: Any) -> Any:
        return evaluate(f, points | {by: points[by] + step})

    eps = _EPS * np.maximum(1.0, np.abs(points[by]) / _NEAR)
    with np.errstate(all="ignore"):
        half, full = ((moved(e) - moved(-e)) / (2 * e) for e in (eps / 2, eps))
        numeric, analytic = (4 * half - full) / 3, evaluate(slope, points)
        middle = evaluate(f, points)
        left, right = (middle - moved(-eps / 2)) / (eps / 2), (moved(eps / 2) - middle) / (eps / 2)
        kink = np.abs(right - left) > 1e-2 * (1 + np.abs(numeric))
        allowed = (
            _TOLERANCE * (1 + np.abs(numeric)) + np.abs(half - full) + _ROUNDING * _largest(f, points) / eps
        )
        error = np.where(kink | ~np.isfinite(numeric), 0.0, np.abs(numeric - analytic))
    wrong = error > allowed
    if wrong.any():
        plain = np.all([np.abs(values) < 3 for values in points.values()], axis=0) & wrong
        k = int(np.argmax(np.where(plain if plain.any() else wrong, error, 0.0)))
        raise InputError(
            f"{what}: expected a derivative near {numeric[k]:.7g} for {_at(points, k)}, by central differences; got "
            f"{analytic[k]:.7g}; {cure}"
        )


def _largest(f: Value, points: Points) -> Any:
    """The size of f, or of the largest term of a sum or difference that it is made of."""
    terms = [term for v in history(f) if v.op in ("add", "sub") for term in v.parents]
    return np.max(np.abs(evaluate_all([f, *terms], points)), axis=0)


def _at(points: Points, k: int) -> str:
    return ", ".join(f"{name} = {values[k]:.6g}" for name, values in points.items())
