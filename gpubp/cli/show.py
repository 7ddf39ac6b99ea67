"""Lines that several commands print."""

from __future__ import annotations

from gpubp.backend import Backend, devices
from gpubp.network import Network


def number(n: int) -> str:
    """1,234."""
    return f"{n:,}"


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
    """Widths, activations, parameters."""
    widths = "-".join(str(n) for n in (net.n_in, *(layer.n_out for layer in net.layers)))
    names = list(dict.fromkeys(layer.activation.name for layer in net.layers[:-1])) or ["linear"]
    return f"network   {widths}, {', '.join(names)}, {number(net.n_parameters)} parameters, {net.dtype.name}"
