"""Clipping of a flat buffer of gradients against NumPy: by value, by norm, and what is not finite."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import run_kernel

from gpubp.kernels.clipping import clip
from gpubp.kernels.optimizers import BLOCK, GRADIENT_FACTOR
from gpubp.kernels.replay import COUNTERS, GRADIENT_NOT_FINITE, LOSS_NOT_FINITE, STOPPED

DTYPES = (np.float32, np.float64)
LENGTHS = st.integers(0, 60) | st.sampled_from([BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 1])
seeds = st.integers(0, 2**32 - 1)


def clipped(g, *, value=None, norm=None, stopped=0, size=1):
    """The gradients, the factor and counters[STOPPED] by the kernel."""
    g, limits = g.copy(), np.array([value or np.inf, norm or np.inf])
    hyper, counters = np.array([0.1, 7.0]), np.zeros(COUNTERS, np.int64)
    counters[STOPPED] = stopped
    partials = np.full(max(1, -(-g.size // BLOCK)), np.nan)
    operands = (g, limits, hyper, counters, partials)
    run_kernel(clip, g.dtype, operands, (value is not None, norm is not None), size=size)
    assert hyper[0] == 0.1
    return g, hyper[GRADIENT_FACTOR], counters[STOPPED]


@pytest.mark.parametrize("dtype", DTYPES)
@given(
    n=LENGTHS,
    seed=seeds,
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    by=st.sampled_from(["value", "norm", "both"]),
)
def test_over_lengths(dtype, n, seed, scale, by):
    g = (scale * np.random.default_rng(seed).standard_normal(n)).astype(dtype)
    value, norm = (None if by == "norm" else 0.5), (None if by == "value" else 2.0)
    found, factor, stopped = clipped(g, value=value, norm=norm)
    expected = g if value is None else np.clip(g, dtype(-0.5), dtype(0.5))
    np.testing.assert_array_equal(found, expected)
    length = np.linalg.norm(expected.astype(np.float64))
    assert factor == (7 if norm is None else pytest.approx(min(1, 2 / (length + 1e-6)), rel=1e-12))
    assert stopped == 0
    for size in (2, 3):
        again = clipped(g, value=value, norm=norm, size=size)
        assert (again[0].tobytes(), *again[1:]) == (found.tobytes(), factor, stopped)


def test_at_the_limits_nothing_is_clipped():
    g = np.array([0.5, -0.5, 0.0, -0.0])
    assert clipped(g, value=0.5)[0].tobytes() == g.tobytes()
    assert clipped(g, norm=1.0)[1] == 1  # 1 / (0.7 + 1e-6) is above
    # the 1e-6 of PyTorch: a norm that equals the limit is shortened by a millionth of itself
    assert clipped(np.array([3.0, 4.0]), norm=5.0)[1] == pytest.approx(1 - 2e-7, rel=1e-9)


@pytest.mark.parametrize("n", [1, 3, 2000])
@pytest.mark.parametrize("value", [np.finfo(np.float32).max, np.finfo(np.float32).smallest_subnormal])
def test_squares_of_float32_neither_overflow_nor_vanish(value, n):
    norm, limit = float(value) * np.sqrt(n), 1e-3 * float(value)
    _, factor, stopped = clipped(np.full(n, value), norm=limit)
    assert factor == pytest.approx(min(1, limit / (norm + 1e-6)), rel=1e-12)
    assert stopped == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("value", "norm"), [(1.0, None), (None, 1.0), (1.0, 1.0)])
@given(n=LENGTHS.filter(bool), data=st.data())
def test_what_is_not_finite_stays_and_stops_a_norm(dtype, bad, value, norm, n, data):
    g, k = np.full(n, 2, dtype), data.draw(st.integers(0, n - 1))
    g[k] = bad
    found, _, stopped = clipped(g, value=value, norm=norm)
    np.testing.assert_array_equal(found[k], bad)  # where a value alone is clipped, the update finds it
    assert stopped == (GRADIENT_NOT_FINITE if norm else 0)
    assert clipped(g, value=value, norm=norm, stopped=LOSS_NOT_FINITE)[2] == LOSS_NOT_FINITE


def test_a_norm_beyond_float64_stops_instead_of_making_every_gradient_0():
    _, _, stopped = clipped(np.full(4, 1e200), norm=1.0)
    assert stopped == GRADIENT_NOT_FINITE
