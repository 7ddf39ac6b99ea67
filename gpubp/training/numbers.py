"""Numbers as people read them while training: short, with units."""

from __future__ import annotations

import math


def value(number: float) -> str:
    """Four decimals, or four digits where those say nothing: 0.1234, 1.234e-06, 1.235e+08."""
    if number == 0 or 1e-3 <= abs(number) < 1e5 or not math.isfinite(number):
        return f"{number:.4f}"
    return f"{number:.3e}"


def rate(number: float, unit: str) -> str:
    """48.2k samples/s, of any unit."""
    for scale, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= scale:
            return f"{number / scale:.1f}{prefix} {unit}"
    return f"{number:.0f} {unit}"


def tflops(number: float) -> str:
    """0.032 TFLOP/s; of a small network 0.0012."""
    return f"{number:.3f} TFLOP/s" if number >= 0.01 else f"{number:.2g} TFLOP/s"


def size(nbytes: int) -> str:
    """312 MiB, 4.1 GiB."""
    return f"{nbytes / 2**30:.1f} GiB" if nbytes >= 2**30 else f"{nbytes / 2**20:.0f} MiB"


def duration(seconds: float) -> str:
    """9s, 1m05s, 2h03m."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 60}m{whole % 60:02d}s" if whole >= 60 else f"{whole}s"
