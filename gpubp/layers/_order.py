"""Lists of layers: from widths, from configurations, and checked to follow each other."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from gpubp.custom import activation_from_config
from gpubp.errors import ConfigError, InputError, unknown_name
from gpubp.kernels.activations import ACTIVATIONS, Activation

from ._base import Layer
from ._batch_norm import BatchNorm
from ._dense import Dense
from ._dropout import Dropout
from ._embedding import Embedding
from ._gated import GEGLU, GatedDense, SwiGLU
from ._norms import LayerNorm, RMSNorm
from ._product import Product
from ._residual import Residual

Given = Layer | Dropout  # what a network is given


# By the name that a configuration has for them: the class, and what it is made of; the first `needed` have no default.
_KINDS: dict[str, tuple[Callable[..., Given], tuple[str, ...], int]] = {
    "dense": (Dense, ("n_in", "n_out", "activation", "bias", "initial", "max_norm"), 2),
    "dropout": (Dropout, ("rate",), 1),
    "embedding": (Embedding, ("n_in", "categories", "size"), 2),
    "layer_norm": (LayerNorm, ("n", "activation", "eps"), 1),
    "rms_norm": (RMSNorm, ("n", "activation", "eps"), 1),
    "batch_norm": (BatchNorm, ("n", "activation", "eps", "momentum"), 1),
    "gated": (GatedDense, ("n_in", "n_out", "activation", "bias", "initial"), 2),
    "residual": (Residual, ("layers",), 1),
}


def from_config(config: dict[str, Any]) -> Given:
    """The layer that `config()` described. Raises ConfigError for a kind that does not exist."""
    options = dict(config)
    kind = options.pop("layer", None)
    if kind not in list(_KINDS):  # a list: a name of an unhashable type is unknown too
        *kinds, last = map(repr, _KINDS)
        raise ConfigError(
            f"unknown layer: expected {', '.join(kinds)} or {last}; got {kind!r}; the file was written by a newer gpubp"
        )
    make, names, needed = _KINDS[kind]
    try:
        if isinstance(options.get("activation"), dict):
            options["activation"] = activation_from_config(options["activation"])
        if isinstance(options.get("layers"), list):
            inner = options["layers"]
            options["layers"] = [from_config(one) if isinstance(one, dict) else one for one in inner]
        first = [options.pop(name) for name in names[:needed]]
        return make(*first, **options)
    except (TypeError, KeyError) as error:
        raise ConfigError(f"layer: expected {', '.join(names)}; got {config!r}") from error


GATES: dict[str, Callable[..., GatedDense]] = {"swiglu": SwiGLU, "geglu": GEGLU}
# The He initializer fits a gate alone: with it what three such layers of 64 give has a deviation of 17, with this 0.06.
_OF_GATED = "lecun_normal"


def from_widths(
    widths: list[Any],
    activation: str | Activation,
    output: str | Activation,
    *,
    max_norm: float | None = None,
    gated: str | None = None,
) -> list[Product]:
    """Dense layers between these widths: hidden ones with `activation` and `max_norm`, the last one with `output`.

    With `gated`, "swiglu" or "geglu", hidden ones are gated units so called, which have neither. ConfigError for other
    names.
    """
    if len(widths) < 2:
        raise InputError(f"layers: expected at least two widths, inputs and outputs; got {widths!r}")
    if gated is not None and gated not in GATES:
        raise unknown_name("gated unit", gated, GATES)
    *pairs, last = itertools.pairwise(widths)
    hidden: list[Product] = [
        GATES[gated](*pair, initial=_OF_GATED) if gated else Dense(*pair, activation, max_norm=max_norm)
        for pair in pairs
    ]
    return [*hidden, Dense(*last, output)]


NORMS: dict[str, Callable[[int, Activation], Layer]] = {
    "layer": LayerNorm,
    "rms": RMSNorm,
    "batch": BatchNorm,
}


def _normed(layer: Product, norm: str) -> list[Layer]:
    """The layer and the norm so called, which takes over its activation; a gate is not one, and stays."""
    if not isinstance(layer, Dense):
        return [layer, NORMS[norm](layer.n_out, ACTIVATIONS["identity"])]
    plain = Dense(layer.n_in, layer.n_out, initial=layer.initial, max_norm=layer.max_norm)
    return [plain, NORMS[norm](layer.n_out, layer.activation)]


def with_blocks(layers: Sequence[Product], norm: str | None, *, residual: bool) -> list[list[Layer]]:
    """What stands for each of these layers: of a hidden one the layer and the norm so called, where there is one.

    With `residual`, a hidden layer that gives as many numbers as it takes stands in a Residual, the norm and with it
    the activation before its product (He et al. 2016, arXiv:1603.05027, "full pre-activation"). ConfigError for an
    unknown norm.
    """
    if norm is not None and norm not in NORMS:
        raise unknown_name("norm", norm, NORMS)
    found: list[list[Layer]] = []
    for layer in layers[:-1]:
        parts: list[Layer] = _normed(layer, norm) if norm else [layer]
        block = residual and layer.n_in == layer.n_out
        found.append([Residual(parts[::-1])] if block else parts)
    return [*found, [layers[-1]]]


def with_dropout(
    layers: Sequence[Product], rates: Sequence[float], norm: str | None = None, *, residual: bool = False
) -> list[Given]:
    """These layers, with Dropout behind each hidden one; `rates` has one for each, and 0 stands for none.

    `norm` and `residual` put norms and blocks among them; see `with_blocks`. Dropout stands behind those.
    """
    found: list[Given] = []
    for block, rate in zip(with_blocks(layers, norm, residual=residual), [*rates, 0.0], strict=True):
        found += [*block, Dropout(rate)] if rate else block
    return found


def in_order(layers: list[Given]) -> tuple[list[Layer], list[float]]:
    """The layers, copied, and the rates of dropout: of the inputs, then of the outputs of each but the last.

    Raises InputError where layers do not fit each other, or where dropout has no place.
    """
    found: list[Layer] = []
    rates = [0.0]
    for k, layer in enumerate(layers):
        if isinstance(layer, Layer):
            found.append(copy.copy(layer))  # a network binds its own views
            rates.append(0.0)
        elif k > 0 and isinstance(layers[k - 1], Dropout):
            raise InputError(
                f"layers: expected one Dropout between layers; got two, {layers[k - 1]!r} and {layer!r}"
            )
        else:
            rates[-1] = layer.rate
    if not isinstance(layers[-1], Dense):
        raise InputError(
            f"layers: expected a Dense layer as the last one; got {layers!r}; others stand before or between them"
        )
    if any(layer.categories for layer in found[1:]) or (found[0].categories and rates[0]):
        raise InputError(
            f"layers: expected an Embedding as the first of all, before any Dropout; got {layers!r}; it takes "
            "numbers of categories, which no layer gives"
        )
    for k, (below, above) in enumerate(itertools.pairwise(found)):
        if below.n_out != above.n_in:
            raise InputError(
                f"layers: expected layer {k + 1} to take the {below.n_out} outputs of layer {k}; got n_in={above.n_in}"
            )
    return found, rates[:-1]
