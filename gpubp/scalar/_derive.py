"""From a Python function to expressions: the function itself, its derivative, and its derivative from its output."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpubp.errors import InputError

from ._numbers import constants, evaluate, probes
from ._simplify import Simplifier, number, same
from ._value import OPS, Value, history

MOST_OPERATIONS = 300  # of an expression that is compiled


def trace(f: Callable[..., Any], names: Sequence[str], what: str, *, constant: bool = False) -> Value:
    """The expression that f gives for symbols of these names; with `constant` it may be the same number for all.

    InputError, which begins with `what`, where it gives none.
    """
    first = _traced(f, names, what, constant)
    if _outline(first) != _outline(_traced(f, names, what, constant)):
        raise InputError(
            f"{what}: expected the same expression each time; got another one; leave random numbers and counters out"
        )
    return first


def _traced(f: Callable[..., Any], names: Sequence[str], what: str, constant: bool) -> Value:
    symbols = [Value.symbol(name) for name in names]
    wanted = f"a function of {len(names)} scalar{'s' * (len(names) > 1)} ({', '.join(names)})"
    try:
        inspect.signature(f).bind(*symbols)
    except (TypeError, ValueError) as error:
        if not callable(f) or isinstance(error, TypeError):
            raise InputError(f"{what}: expected {wanted}; got {f!r:.80} ({error})") from None
    try:
        with np.errstate(all="ignore"):
            result = f(*symbols)
    except InputError as error:
        raise InputError(f"{what}: it {error}") from None
    except RecursionError:
        raise InputError(
            f"{what}: expected a function that ends; got one that calls itself for ever"
        ) from None
    except Exception as error:
        raise InputError(
            f"{what}: expected arithmetic and the functions of gpubp.scalar; got {type(error).__name__} "
            f"({' '.join(str(error).split()):.200}); it calls something that cannot be traced"
        ) from error
    if isinstance(result, (bool, np.bool_)) or not isinstance(result, (Value, int, float, np.number)):
        cure = "; end it with return" if result is None else ""
        raise InputError(f"{what}: expected it to return a number; got {result!r:.80}{cure}")
    result = as_value(result)
    order, known = history(result), {id(symbol) for symbol in symbols}
    if not constant and not any(v is symbols[0] for v in order):
        raise InputError(
            f"{what}: expected a result that depends on {names[0]}; got the same for every {names[0]}"
        )
    if any(v.op == "symbol" and id(v) not in known for v in order):
        raise InputError(
            f"{what}: expected symbols of this call only; got one of another; compute with {names[0]}"
        )
    if len(order) > 10 * MOST_OPERATIONS:
        raise InputError(
            f"{what}: expected at most {MOST_OPERATIONS} operations; got {len(order)}; use fewer"
        )
    return result


def _outline(root: Value) -> list[Any]:
    """What two traces of one function have in common."""
    order = history(root)
    place = {id(v): k for k, v in enumerate(order)}
    return [(v.op, v.label, repr(v._data), *(place[id(parent)] for parent in v.parents)) for v in order]


def derivative(y: Value, x: Value, make: Simplifier, *, of_output: bool = False) -> Value:
    """dy/dx: the sweep of `Value.backward`, over expressions instead of numbers.

    With `of_output` in the form that takes operations' results where an operation has one.
    """
    total: dict[int, Value] = {id(y): make.constant(1.0)}
    for v in reversed(history(y)):
        if not v.parents or id(v) not in total:
            continue
        op = OPS[v.op]
        slopes = (op.of_output(v),) if of_output and op.of_output else op.slopes(*v.parents, v)
        for parent, slope in zip(v.parents, slopes, strict=True):
            if parent.op == "constant":
                continue
            term = make.make("mul", make(as_value(slope)), total[id(v)])
            before = total.get(id(parent))
            total[id(parent)] = term if before is None else make.make("add", before, term)
    return total.get(id(x), make.constant(0.0))


def as_value(slope: Any) -> Value:
    """A slope as a Value: a plain number becomes a constant."""
    return slope if isinstance(slope, Value) else Value(slope)


# ---- f' from a = f(x) alone --------------------------------------------------------------------------------


def derivative_of_output(y: Value, x: Value, slope: Value, make: Simplifier) -> Value | None:
    """`slope`, which is dy/dx, as an expression of a = y, the symbol "a", where y determines it; else None.

    y itself, and what y is a constant sum, product or quotient of, is written by a. A condition on x becomes one on a,
    which is right where y rises: so a candidate is compared with `slope`, on both sides of each kink and in between.
    """
    a = make(Value.symbol("a"))
    for form in (slope, derivative(y, x, make, of_output=True)):
        found = _by(a, form, y, x, make)
        if found is not None and is_of_output(found, y, slope):
            return found
    return None


def is_of_output(found: Value, y: Value, slope: Value) -> bool:
    """Whether `found`, of the symbol "a", at a = y is `slope`: both of the symbol "x", at probes of every size.

    In float64 to rounding; in float32, where y may round to one number for every x, to 1e-4 of the largest slope.
    """
    breaks = [*constants(y), *constants(slope)]
    x = probes(breaks)
    error, values, exact = _apart(found, y, slope, x, np.float64)
    if not (error <= 1e-9 * (1 + np.abs(exact) + np.abs(values))).all():
        return False
    sides = (
        np.nextafter(np.float32(c), np.float32(side)) for c in (0.0, *breaks) for side in (-np.inf, np.inf)
    )
    short = np.unique([*x[np.abs(x) <= 10].astype(np.float32), *sides])
    error, _, exact = _apart(found, y, slope, short, np.float32)
    return bool((error <= 1e-4 * np.abs(exact).max(initial=0.0)).all())


def _apart(found: Value, y: Value, slope: Value, x: Any, dtype: Any) -> tuple[Any, Any, Any]:
    """The difference of `found` and `slope`, y and `slope`, where these two are finite."""
    values, exact = evaluate(y, {"x": x}, dtype), evaluate(slope, {"x": x}, dtype)
    known = np.isfinite(values) & np.isfinite(exact)
    values, exact = values[known], exact[known]
    with np.errstate(all="ignore"):
        return np.abs(evaluate(found, {"a": values}, dtype) - exact), values, exact


def _by(a: Value, slope: Value, y: Value, x: Value, make: Simplifier) -> Value | None:
    """`slope`, an expression of x, by a = y; None where x is left in it."""
    written = make(slope, _by_output(a, y, make))
    if not _holds(written, x):
        return written
    if slope.op != "where":
        return None
    low, high, *slopes = slope.parents
    branches = y.parents[2:] if y.op == "where" and same(y.parents[:2], (low, high)) else (y, y)
    for s, branch in zip(slopes, branches, strict=True):
        # Where y is flat, a has to be the limit to the last bit in every type: a constant, and nothing computed.
        if number(s) == 0 and branch.op != "constant":
            return None
    sides = [_by(a, s, branch, x, make) for s, branch in zip(slopes, branches, strict=True)]
    condition = _condition(a, low, high, y, make)
    if condition is None or sides[0] is None or sides[1] is None:
        return None
    return make.make("where", *condition, sides[0], sides[1])


def _by_output(a: Value, y: Value, make: Simplifier) -> dict[int, Value]:
    """{y: a}, and what y is c + u, c - u, c u, u / c or -u of, by a; keys are ids."""
    replace, value = {id(y): a} if y.op != "constant" else {}, a
    while y.op in ("add", "sub", "mul", "div", "neg"):
        (c, u) = (None, y.parents[0]) if y.op == "neg" else (number(y.parents[0]), y.parents[1])
        if y.op == "div":
            c, u = number(y.parents[1]), y.parents[0]
        if y.op == "neg":
            value = make.make("neg", value)
        elif c is None:
            break
        elif y.op == "add":
            value = make.make("sub", value, c)
        elif y.op == "sub":
            value = make.make("sub", c, value)
        else:
            value = make.make("div" if y.op == "mul" else "mul", value, c)
        replace[id(u)], y = value, u
    return replace


def _condition(a: Value, low: Value, high: Value, y: Value, make: Simplifier) -> tuple[Value, Value] | None:
    """low > high, one of them a constant, as a condition on a rising y: at the limit it has the value of y there."""
    if number(high) is not None:
        limit = number(make(y, {id(low): high}))
        return None if limit is None else (a, make.constant(limit))
    if number(low) is not None:
        limit = number(make(y, {id(high): low}))
        return None if limit is None else (make.constant(limit), a)
    return None


def _holds(root: Value, x: Value) -> bool:
    return any(v is x for v in history(root))
