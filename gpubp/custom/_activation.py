"""Activations of one's own: a Python function, traced, differentiated, checked, and compiled as the built-in ones are.

import gpubp
from gpubp.scalar import tanh

def lazy(x):
    return x * (1 + tanh(x / 2)) / 2

net = gpubp.Network([784, 256, 10], activation=gpubp.activation(lazy))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpubp.errors import InputError
from gpubp.kernels.activations import ACTIVATIONS, Activation
from gpubp.kernels.expressions import scalar_function
from gpubp.scalar import (
    Simplifier,
    Value,
    derivative,
    derivative_of_output,
    evaluate,
    formula,
    from_tree,
    is_of_output,
    to_tree,
    trace,
)

from ._check import check_defined, check_derivative, line
from ._stored import Frozen, entries, frozen, name_of

_ENTRIES = ("name", "f", "d_f", "d_f_of_output")


@dataclass(frozen=True, repr=False)
class CustomActivation(Activation):
    """An activation with its expressions: `trees` are those of f and d_f of x and, or None, d_f_of_output of a."""

    trees: tuple[Frozen, Frozen, Frozen | None] = ((), (), None)

    def config(self) -> dict[str, Any]:
        """The name and the three expressions as plain lists, which `from_config` makes the activation of again."""
        trees = (None if tree is None else [list(node) for node in tree] for tree in self.trees)
        return dict(zip(_ENTRIES, (self.name, *trees), strict=True))

    @property
    def formulas(self) -> tuple[str, str]:
        """f and f' as they would be typed, f' of a = f(x) where that is how it is computed."""
        f, d_f, of_output = self.trees
        slope = from_tree(d_f, "x") if of_output is None else from_tree(of_output, "a")
        return formula(from_tree(f, "x")), formula(slope)

    def __call__(self, x: Any) -> Any:
        """f(x) of a Value or a number: activations can be parts of others."""
        result = from_tree(self.trees[0], {"x": x if isinstance(x, Value) else Value(x)})
        return result if isinstance(x, Value) else result.data

    def __repr__(self) -> str:
        return f"activation({self.name!r}: {self.formulas[0]})"

    def __reduce__(self) -> Any:
        return from_config, (self.config(),)

    def __deepcopy__(self, memo: Any) -> CustomActivation:
        return self


def activation(
    f: Callable[[Any], Any], *, d_f: Callable[[Any], Any] | None = None, name: str | None = None
) -> CustomActivation:
    """The activation a = f(x), for `activation=` and `output=` of networks, layers and estimators.

    f is a Python function of one scalar, written with + - * / **, abs, the functions of `gpubp.scalar` (exp, log, tanh,
    sigmoid, relu, maximum, where, ...) or NumPy's of the same names. It is called with a symbol; the expression that
    comes back is simplified, and its derivative is derived, or is that of `d_f`, such a function too. Where a = f(x)
    determines f', it is written by a alone. Both run in the fused kernels of the built-in activations, on CPU and GPU.
    `name` is by default that of f. Files keep the expressions, never the source.

    Before it returns, f and f' are evaluated at more than a thousand x up to 1e4 and beside poles and kinks, in float32
    and float64, where neither may be NaN (nor infinite for |x| <= 10), and there f' is compared with central
    differences. At a kink, where these say nothing, relu(x), maximum(x, y) and where(x > y, ...) take the slope of the
    side x <= y, and abs(x) takes 0.

    Raises InputError where f branches on its value, calls what cannot be traced, returns no number, is undefined
    somewhere, or has another derivative than d_f; ConfigError for a name that cannot be one.
    """
    name = name_of(f, name, "activation", ACTIVATIONS)
    what = f"activation {name!r}"
    make = Simplifier()
    y, x = make(trace(f, ["x"], what)), make(Value.symbol("x"))
    slope = derivative(y, x, make) if d_f is None else make(trace(d_f, ["x"], f"{what}: d_f", constant=True))
    of_output = derivative_of_output(y, x, slope, make)
    _check(
        y, slope, what, "the derivative of f was derived wrongly: give d_f=" if d_f is None else "correct d_f"
    )
    trees = [None if root is None else to_tree(root, what) for root in (y, slope, of_output)]
    return _made(name, trees, y)


def from_config(config: Any) -> CustomActivation:
    """The activation that `config()` described. InputError, ConfigError: the entries are not what it writes."""
    found = entries(config, "activation", _ENTRIES)
    name = name_of(None, found["name"], "activation", ACTIVATIONS)
    what = f"activation {name!r}"
    y, slope = from_tree(found["f"], "x"), from_tree(found["d_f"], "x")
    _check(y, slope, what, "the file is damaged or was changed")
    of_output = found["d_f_of_output"]
    if of_output is not None and not is_of_output(from_tree(of_output, "a"), y, slope):
        raise InputError(
            f"{what}: expected d_f_of_output(f(x)) = d_f(x); got another number; the file was changed"
        )
    return _made(name, [found[entry] for entry in _ENTRIES[1:]], y)


def _made(name: str, trees: list[Any], y: Value) -> CustomActivation:
    f, d_f, of_output = trees
    return CustomActivation(
        name,
        scalar_function(name, f, ["x"]),
        scalar_function(f"d_{name}", d_f, ["x"]),
        None if of_output is None else scalar_function(f"d_{name}_of_output", of_output, ["a"]),
        _initial(y),
        (frozen(f), frozen(d_f), None if of_output is None else frozen(of_output)),
    )


def _check(y: Value, slope: Value, what: str, cure: str) -> None:
    points = line(y, slope)
    check_defined(y, points, what)
    check_defined(slope, points, f"{what}: its derivative")
    shifted = {"x": points["x"] + 0.00123}  # off the places where kinks are
    check_derivative(y, slope, "x", shifted, what, cure)


def _initial(y: Value) -> str:
    """He's weights for what passes half of its inputs, like relu: near x at 3, near 0 at -3; Glorot's for the rest."""
    below, above = evaluate(y, {"x": np.array([-3.0, 3.0])})
    return "he_normal" if abs(above - 3) < 0.5 and abs(below) < 1 else "glorot_uniform"
