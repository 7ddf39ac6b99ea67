"""Losses of one's own: a Python function of output and target, traced, differentiated, checked, and compiled.

import gpubp
from gpubp.scalar import maximum

def ninth_decile(a, y):
    return maximum(0.9 * (y - a), 0.1 * (a - y))

trainer = gpubp.Trainer(net, loss=gpubp.loss(ninth_decile))
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpubp.checks import real_number
from gpubp.errors import InputError
from gpubp.kernels.expressions import scalar_function
from gpubp.kernels.losses import LOSSES, Loss
from gpubp.scalar import Simplifier, Value, derivative, formula, from_tree, to_tree, trace

from ._check import check_defined, check_derivative, plane
from ._stored import Frozen, entries, frozen, name_of

Bounds = tuple[float, float]

_ARGUMENTS = ["a", "y"]
_ENTRIES = ("name", "l", "d_l", "mean_over_outputs", "outputs", "targets")
_ANY = (-math.inf, math.inf)


@dataclass(frozen=True, repr=False)
class CustomLoss(Loss):
    """A loss with its expressions: `trees` are those of l and its derivative by a."""

    trees: tuple[Frozen, Frozen] = ((), ())

    def config(self) -> dict[str, Any]:
        """The name, the expressions and the bounds as plain values, which `from_config` makes the loss of again."""
        trees = ([list(node) for node in tree] for tree in self.trees)
        bounds = ([v if math.isfinite(v) else None for v in pair] for pair in (self.outputs, self.targets))
        return dict(zip(_ENTRIES, (self.name, *trees, self.mean_over_outputs, *bounds), strict=True))

    @property
    def formulas(self) -> tuple[str, str]:
        """l and its derivative by a as they would be typed."""
        l, d_l = (formula(from_tree(tree, _ARGUMENTS)) for tree in self.trees)
        return l, d_l

    def __repr__(self) -> str:
        return f"loss({self.name!r}: {self.formulas[0]})"

    def __reduce__(self) -> Any:
        return from_config, (self.config(),)

    def __deepcopy__(self, memo: Any) -> CustomLoss:
        return self


def loss(
    f: Callable[[Any, Any], Any],
    *,
    d_f: Callable[[Any, Any], Any] | None = None,
    name: str | None = None,
    mean_over_outputs: bool = True,
    outputs: Bounds = _ANY,
    targets: Bounds = _ANY,
) -> CustomLoss:
    """The loss l(a, y) of one output a and its target y, for `loss=` of trainers.

    f is a Python function of two scalars, written as that of `gpubp.activation` is, and d_f its derivative by a, which
    is derived where not given. The loss of an example is the mean of l over the outputs, or their sum with
    mean_over_outputs=False; that of a batch is the mean over examples, weighted by their sample weights. `outputs` and
    `targets` are the bounds between which l is defined: a network whose outputs may lie outside is refused, and so are
    targets.

    Before it returns, f and its derivative are evaluated at some thousand pairs up to 40 within the bounds, and the
    derivative is compared with central differences. Raises InputError and ConfigError as `gpubp.activation` does.
    """
    name = name_of(f, name, "loss", LOSSES)
    what = f"loss {name!r}"
    bounds = [_bounds(pair, f"{what}: {side}") for pair, side in ((outputs, "outputs"), (targets, "targets"))]
    if not isinstance(mean_over_outputs, bool):
        raise InputError(f"{what}: mean_over_outputs: expected True or False; got {mean_over_outputs!r:.80}")
    make = Simplifier()
    l, a = make(trace(f, _ARGUMENTS, what)), make(Value.symbol("a"))
    slope = (
        derivative(l, a, make) if d_f is None else make(trace(d_f, _ARGUMENTS, f"{what}: d_f", constant=True))
    )
    cure = "the derivative of f was derived wrongly: give d_f=" if d_f is None else "correct d_f"
    _check(l, slope, bounds, what, cure)
    return _made(name, [to_tree(l, what), to_tree(slope, what)], mean_over_outputs, bounds)


def from_config(config: Any) -> CustomLoss:
    """The loss that `config()` described. InputError, ConfigError: the entries are not what it writes."""
    found = entries(config, "loss", _ENTRIES)
    name = name_of(None, found["name"], "loss", LOSSES)
    what = f"loss {name!r}"
    bounds = []
    for side in ("outputs", "targets"):
        pair = found[side]
        if not isinstance(pair, list) or len(pair) != 2:
            raise InputError(f"{what}: {side}: expected a list of two numbers or null; got {pair!r:.80}")
        given = tuple(v if v is not None else unbounded for v, unbounded in zip(pair, _ANY, strict=True))
        bounds.append(_bounds(given, f"{what}: {side}"))
    l, slope = (from_tree(found[entry], _ARGUMENTS) for entry in ("l", "d_l"))
    if not isinstance(found["mean_over_outputs"], bool):
        raise InputError(
            f"{what}: mean_over_outputs: expected true or false; got {found['mean_over_outputs']!r:.80}"
        )
    _check(l, slope, bounds, what, "the file is damaged or was changed")
    return _made(name, [found["l"], found["d_l"]], found["mean_over_outputs"], bounds)


def _made(name: str, trees: list[Any], mean_over_outputs: bool, bounds: list[Bounds]) -> CustomLoss:
    return CustomLoss(
        name,
        scalar_function(name, trees[0], _ARGUMENTS),
        scalar_function(f"d_{name}", trees[1], _ARGUMENTS),
        mean_over_outputs,
        outputs=bounds[0],
        targets=bounds[1],
        trees=(frozen(trees[0]), frozen(trees[1])),
    )


def _check(l: Value, slope: Value, bounds: list[Bounds], what: str, cure: str) -> None:
    points = plane(*bounds)
    check_defined(l, points, what)
    check_defined(slope, points, f"{what}: its derivative")
    low, high = bounds[0]
    shifted = points["a"] + 0.00123
    inside = (shifted - 1e-3 > low) & (shifted + 1e-3 < high)
    check_derivative(l, slope, "a", {"a": shifted[inside], "y": points["y"][inside]}, what, cure)


def _bounds(pair: Any, what: str) -> Bounds:
    """(low, high) with low < high, infinities too. InputError otherwise."""
    numbers = tuple(map(real_number, pair)) if isinstance(pair, (tuple, list)) else ()
    if len(numbers) != 2 or not numbers[0] < numbers[1]:
        raise InputError(f"{what}: expected (low, high) with low < high; got {pair!r:.80}")
    return numbers[0], numbers[1]
