"""The network that options ask for: its hidden layers, and what each has beside the product."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpubp.errors import ConfigError
from gpubp.layers import Given, Layer, from_widths, with_dropout

from .functions import activation_of

_NOT_GATED = {
    "activation": "the gate is the activation",
    "max_norm": "gated units have no limit of their weights",
}


def layers_of(
    widths: list[int],
    options: Mapping[str, Any],
    activation: str,
    rates: Sequence[float] | None = None,
    *,
    example: str = "--hidden 512,512",
) -> list[Given]:
    """From inputs to outputs of these widths, with the activation so called where neither it nor --gated is given.

    `rates` are those of dropout behind each hidden layer; `example` is an option that gives widths, two alike. Raises
    ConfigError where options do not go together.
    """
    gated, norm, residual = options["gated"], options["norm"], options["residual"]
    for name, why in _NOT_GATED.items():
        if gated is not None and options.get(name) is not None:
            raise ConfigError(
                f"--gated: expected no --{name.replace('_', '-')} beside it, as {why}; got both; leave one of them out"
            )
    function = activation_of(activation if options["activation"] is None else options["activation"])
    products = from_widths(widths, function, "identity", max_norm=options.get("max_norm"), gated=gated)
    found = with_dropout(products, rates or [0.0] * (len(widths) - 2), norm, residual=bool(residual))
    for name in ("gated", "norm", "max_norm"):
        if options.get(name) is not None and len(widths) == 2:
            raise ConfigError(
                f"--{name.replace('_', '-')}: expected hidden layers beside it; got none; use {example}"
            )
    if residual and not any(layer.inner for layer in found if isinstance(layer, Layer)):
        raise ConfigError(
            "--residual: expected a hidden layer as wide as what it takes, to add the two; got widths "
            f"{'-'.join(map(str, widths))}; repeat one, as in {example}"
        )
    return found
