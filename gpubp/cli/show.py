"""Lines that several commands print."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from gpubp.backend import Backend, devices
from gpubp.data import Table, TableBlocks
from gpubp.errors import counted as counted
from gpubp.layers import Dense, Embedding, GatedDense, Layer, Product, leaves
from gpubp.network import Network

if TYPE_CHECKING:
    from .inputs import Inputs
    from .run import Run


def number(n: int) -> str:
    """1,234."""
    return f"{n:,}"


def as_options(message: str, options: Iterable[str]) -> str:
    """A message of the library in the words of the command line: the cure dtype='float64' becomes --dtype float64.

    The cure is what follows the last semicolon; what stands before may quote the user's own words.
    """
    before, mark, cure = message.rpartition("; ")
    names = "|".join(options)
    cure = re.sub(rf"\b({names})='([^']*)'", lambda found: f"--{found[1].replace('_', '-')} {found[2]}", cure)
    return before + mark + cure


def device_line(backend: Backend, asked: str) -> str:
    """The device that was taken, and why."""
    reasons = (
        [f"no {d.name}: {d.description.split(';')[0]}" for d in devices() if not d.usable]
        if asked == "auto"
        else []
    )
    why = "; ".join([f"{asked} was asked for", *reasons])
    return f"device    {backend.name}: {backend.description} ({why})"


def network_line(net: Network) -> str:
    """Widths, embeddings, norms, activations, blocks, dropout, limits of the weights, parameters."""
    dense = [layer for layer in leaves(net.layers).values() if isinstance(layer, Dense)]
    wide = [layer for layer in net.layers if layer.inner or isinstance(layer, Product)]
    widths = "-".join(str(n) for n in (net.n_in, *(layer.n_out for layer in wide)))
    parts = [layer for layer in leaves(net.layers[:-1]).values() if not isinstance(layer, Embedding)]
    embedded = ["Embedding"] if any(isinstance(layer, Embedding) for layer in net.layers) else []
    norms = dict.fromkeys(type(layer).__name__ for layer in parts if _is_norm(layer))
    functions = dict.fromkeys(map(_nonlinearity, parts))
    if len(functions) > 1:
        functions.pop("identity", None)  # of what stands before a norm, a gate or an activation, or behind it
    names = [*embedded, *norms, *functions] or ["linear"]
    blocks = ["residual"] if any(layer.inner for layer in net.layers) else []
    # What an Embedding gives, and a layer before its norm, is never dropped: what counts is behind them.
    rates = [
        rate
        for rate, layer, above in zip(net.rates[1:], net.layers[:-1], net.layers[1:], strict=True)
        if not (_is_norm(above) or isinstance(layer, Embedding))
    ]
    dropped = [f"dropout {','.join(f'{rate:g}' for rate in rates)}"] if any(net.rates) else []
    limits = [layer.max_norm for layer in dense if layer.max_norm is not None]
    limited = [f"max-norm {','.join(f'{limit:g}' for limit in dict.fromkeys(limits))}"] if limits else []
    what = ", ".join([*names, *blocks, *dropped, *limited])
    return f"network   {widths}, {what}, {counted(net.n_parameters, 'parameter')}, {net.dtype.name}"


def _is_norm(layer: Layer) -> bool:
    return not (layer.inner or isinstance(layer, Product | Embedding))


def _nonlinearity(layer: Layer) -> str:
    gated = "gated " if isinstance(layer, GatedDense) else ""
    return f"{gated}{layer.activation.name}"


def input_lines(inputs: Inputs) -> list[str]:
    """Where there is more to the inputs of a network than numbers: the kinds of columns, and what they became."""
    encoder, bins, found = inputs.encoder, inputs.bins, []
    if encoder is not None and encoder.is_mixed:
        kinds = [column.kind for column in encoder.columns]
        plural = {"category": "categories"}
        parts = [
            f"{n} {kind if n == 1 else plural.get(kind, kind + 's')}"
            for kind in dict.fromkeys(kinds)
            for n in (kinds.count(kind),)
        ]
        missing = sum(column.has_missing for column in encoder.columns)
        filled = f"; missing cells filled in {counted(missing, 'column')}" if missing else ""
        found.append(f"columns   {', '.join(parts)}{filled}")
    if inputs.width != inputs.n_features:
        cut = (
            f", {bins.width:,} from bins of {counted(len(bins.columns), 'number')}"
            if bins and bins.width
            else ""
        )
        found.append(f"inputs    {inputs.width:,}: {len(inputs.standardizer.mean):,} from the columns{cut}")
    return found


def say_unknown(run: Run, x: Any, source: str) -> None:
    """One line on standard error, where cells of a table are unlike those of the training."""
    encoder = run.inputs.encoder
    found = encoder.unknown(x) if encoder is not None and isinstance(x, Table | TableBlocks) else []
    if found:
        print(f"gpubp: {source}: {', '.join(found)}", file=sys.stderr)
