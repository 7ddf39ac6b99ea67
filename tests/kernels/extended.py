"""References in extended precision (np.longdouble, 64 bits of mantissa) for float64 functions, and points to test."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

L = np.longdouble
HAS_80_BITS = np.finfo(L).eps < 1e-18
needs_long_double = pytest.mark.skipif(
    not HAS_80_BITS, reason="np.longdouble has no more digits than the float64 under test here"
)
PI = 4 * np.arctan(L(1))
SMALLEST_NORMAL, LARGEST = L(np.finfo(np.float64).tiny), L(np.finfo(np.float64).max)


@functools.cache
def points(mantissas: int = 48, spread: int = 40_000) -> Any:
    """Every sign and exponent (subnormal, infinite and NaN too) with `mantissas` mantissas, and where curves bend."""
    rng = np.random.default_rng(13)
    low = np.r_[0, 1, 2**52 - 1, rng.integers(0, 2**52, mantissas - 3)].astype(np.uint64)
    every_exponent = (
        ((np.arange(4096, dtype=np.uint64)[:, None] << np.uint64(52)) | low).ravel().view(np.float64)
    )
    bends = [rng.uniform(-b, b, spread) for b in (0.6, 1.5, 6.5, 45.0, 760.0)]
    steps = np.log(2) * np.arange(-2160, 2060) / 2  # where exp chooses another power of two
    selects = np.r_[0.5, 1.0, 6.0, 20.0, 22.5, 25.0, 28.0, 38.5, 40.0, 709.782712893384, 745.13, 800.0, steps]
    edges = [selects, np.nextafter(selects, np.inf), np.nextafter(selects, -np.inf)]
    return np.concatenate([every_exponent, *bends, *edges, *[-e for e in edges]])


def erfc_scaled(x: Any) -> Any:
    """exp(x^2) erfc(x) for x >= 0: below 1 from the series of erf, above from the continued fraction."""
    out = np.full_like(x, np.nan)
    low, high = x < 1, x >= 1
    t = x[low]
    term, total = (
        2 * t / np.sqrt(PI),
        np.zeros_like(t),
    )  # exp(x^2) erf(x) = 2/sqrt(pi) sum 2^n x^(2n+1) / (2n+1)!!
    for n in range(60):
        total = total + term
        term = term * 2 * t * t / (2 * n + 3)
    out[low] = np.exp(t * t) - total
    t = x[high]
    fraction = t
    for n in range(300, 0, -1):
        fraction = t + L(n) / 2 / fraction
    out[high] = 1 / (np.sqrt(PI) * fraction)
    return out


def erfc(z: Any) -> Any:
    t = np.minimum(np.abs(z), 150)
    e = np.exp(-t * t) * erfc_scaled(t)
    return np.where(z < 0, 2 - e, e)


def erf(z: Any) -> Any:
    t = np.minimum(np.abs(z), 1)
    total, term = np.zeros_like(t), t * 2 / np.sqrt(PI)
    for n in range(60):
        total = total + term
        term = term * 2 * t * t / (2 * n + 3)
    return np.where(np.abs(z) < 1, np.sign(z) * np.exp(-t * t) * total, np.sign(z) * (1 - erfc(np.abs(z))))


def sigmoid(z: Any) -> Any:
    e = np.exp(-np.abs(z))
    return np.where(z > 0, 1, e) / (1 + e)


def normal_below(z: Any) -> Any:
    """Phi(z), the normal distribution function."""
    return erfc(-z / np.sqrt(L(2))) / 2


def density(z: Any) -> Any:
    return np.exp(-z * z / 2) / np.sqrt(2 * PI)


def errors(out: Any, exact: Any) -> Any:
    """Relative errors where the exact value is a normal number; its limits and NaN are asserted elsewhere."""
    size = np.abs(exact)
    normal = (size >= SMALLEST_NORMAL) & (size <= LARGEST)
    assert np.array_equal(np.isnan(out), np.isnan(exact))
    over = size > LARGEST * (1 + L(2) ** -54)
    assert np.array_equal(out[over], (np.sign(exact[over]) * np.inf).astype(np.float64))
    assert np.all(np.abs(out[size < SMALLEST_NORMAL]) <= SMALLEST_NORMAL)
    with np.errstate(invalid="ignore"):  # inf - inf
        return np.where(normal, np.abs(out - exact) / np.where(normal, size, 1), 0)
