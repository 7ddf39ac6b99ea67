"""norms_: the gain of each hidden layer's norm, and of "layer" its bias, as coefs_ and intercepts_ have the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.errors import InputError

Norms = list[dict[str, Any]]

_PARTS = {"layer": ("gain", "bias"), "rms": ("gain",)}
KINDS = tuple(_PARTS)
ENDINGS = (".gain", ".bias")  # of their names in a network


def initial(kind: str, hidden: Sequence[int], dtype: npt.DTypeLike) -> Norms:
    """Of hidden layers of these widths: gains of 1, biases of 0."""
    start: dict[str, Callable[..., Any]] = {"gain": np.ones, "bias": np.zeros}
    return [{part: start[part](n, dtype) for part in _PARTS[kind]} for n in hidden]


def of(estimator: Any) -> Norms:
    """norms_, empty where the estimator was fitted without. InputError where something else was put there."""
    norms = getattr(estimator, "norms_", [])
    parts = [set(norm) if isinstance(norm, dict) else set() for norm in norms]
    if any(found not in [*map(set, _PARTS.values())] or found != parts[0] for found in parts):
        raise InputError(
            "norms_: expected for each hidden layer a dict of 'gain' and, of norm='layer', 'bias'; got "
            f"{norms!r:.60}; fit anew"
        )
    return list(norms)


def kind(norms: Norms) -> str | None:
    """What they are the norms of."""
    return next((name for name, parts in _PARTS.items() if norms and set(norms[0]) == set(parts)), None)


def vectors(norms: Norms) -> list[Any]:
    """All of them, in the order of a network."""
    return [norm[part] for norm in norms for part in _PARTS["layer"] if part in norm]


def named(names: Sequence[str], arrays: Sequence[Any]) -> Norms:
    """The other way: from the names of a network and the arrays to norms_."""
    found: dict[str, dict[str, Any]] = {}
    for name, array in zip(names, arrays, strict=True):
        layer, _, part = name.rpartition(".")
        found.setdefault(layer, {})[part] = array
    return [*found.values()]
