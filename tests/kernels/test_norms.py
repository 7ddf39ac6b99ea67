"""LayerNorm and RMSNorm, forward and backward, against NumPy in float64 over shapes, dtypes and what is not finite."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from reference import ACTIVATION, run_kernel

from gpubp.kernels import norms
from gpubp.kernels.activations import ACTIVATIONS
from gpubp.kernels.reductions import granule_count

DTYPES = (np.float32, np.float64)
KINDS = ((True, "tanh"), (False, "gelu"))
EDGES = ((0, 3), (1, 1), (15, 7), (17, 7), (1025, 2), (2049, 1), (2, 4099), (127, 129))
shapes = st.tuples(st.integers(0, 70), st.integers(1, 40)) | st.sampled_from(EDGES)
EPS = 1e-3


def reference(x, upstream, gain, bias, name, center):
    """a, dE/dx, dE/dgain, dE/dbias by the equations of the docstring, and r."""
    f, d_f = ACTIVATION[name]
    x, upstream, gain, bias = (v.astype(np.float64) for v in (x, upstream, gain, bias))
    about = x - x.mean(axis=1, keepdims=True) if center else x
    r = 1 / np.sqrt((about * about).mean(axis=1, keepdims=True) + EPS)
    n = about * r
    d = upstream * d_f(gain * n + bias)
    g = gain * d
    pull = g - n * (g * n).mean(axis=1, keepdims=True)
    dx = r * (pull - g.mean(axis=1, keepdims=True) if center else pull)
    return f(gain * n + bias), dx, (d * n).sum(axis=0), d.sum(axis=0), r


def both_ways(x, upstream, gain, bias, name, center, dtype):
    """The same by the kernels."""
    g, n = ACTIVATIONS[name], x.shape[1]
    a, moments = np.full_like(x, np.nan), np.full((len(x), norms.KEPT), np.nan, dtype)
    run_kernel(norms.normalize, dtype, (x, gain, bias, np.array([EPS], dtype), a, moments), (g.f, center))
    dx, dgain, dbias = upstream.copy(), np.full(n, np.nan, dtype), np.full(n, np.nan, dtype)
    partials = np.full((2 * granule_count(len(x)), n), np.nan, dtype)
    operands = (dx, x, moments, gain, bias, dgain, dbias, partials)
    run_kernel(norms.normalize_delta, dtype, operands, (g.d_f, center))
    return a, dx, dgain, dbias


def drawn(shape, dtype, seed):
    rng = np.random.default_rng(seed)
    x, upstream = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    gain, bias = (rng.standard_normal(shape[1]).astype(dtype) for _ in range(2))
    return (3 * x + 1).astype(dtype), upstream, gain, bias


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("center", "name"), KINDS)
@given(shape=shapes, seed=st.integers(0, 999))
@example(shape=(0, 3), seed=0)
@example(shape=(1025, 2), seed=0)
@example(shape=(2, 4099), seed=0)
def test_both_ways_over_shapes(center, name, dtype, shape, seed):
    given_ = drawn(shape, dtype, seed)
    a, dx, dgain, dbias = both_ways(*given_, name, center, dtype)
    right, right_dx, right_dgain, right_dbias, r = reference(*given_, name, center)
    eps, n = float(np.finfo(dtype).eps), shape[1]
    # n errs by some roundings of |x| r, which a mean far from 0 makes larger than n itself
    size = 1 + (np.abs(given_[0]) * r).max(axis=1, keepdims=True, initial=0)
    slope = 1 + np.abs(given_[2]).max()
    bound = 60 * eps * size * slope**2 * np.sqrt(n)
    assert (np.abs(a - right) <= bound).all()
    steep = np.abs(given_[1]).max(axis=1, keepdims=True, initial=0) * r * size * slope
    assert (np.abs(dx - right_dx) <= bound * steep * 4).all()
    columns = (bound * np.abs(given_[1]).astype(np.float64) * size).sum(axis=0) * 4 + eps
    assert (np.abs(dgain - right_dgain) <= columns).all()
    if center:
        assert (np.abs(dbias - right_dbias) <= columns).all()
    else:
        assert np.isnan(dbias).all()  # left alone


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("center", "name"), KINDS)
def test_what_is_not_finite_stays_in_its_row_and_shows_in_the_gradients(center, name, dtype):
    x, upstream, gain, bias = drawn((40, 6), dtype, 0)
    plain = both_ways(x, upstream, gain, bias, name, center, dtype)
    x[3, 2], x[20, 5], upstream[33, 1] = np.nan, np.inf, np.nan
    a, dx, dgain, dbias = both_ways(x, upstream, gain, bias, name, center, dtype)
    bad = [3, 20]
    assert np.isnan(a[3]).all()
    assert np.isnan(a[20, 5])
    assert np.isnan(dx[[3, 33]]).all()
    assert np.isnan(dgain).any()
    if center:
        assert np.isnan(dbias).any()
    good = np.setdiff1d(np.arange(40), [*bad, 33])
    np.testing.assert_array_equal(a[good], plain[0][good])
    np.testing.assert_array_equal(dx[good], plain[1][good])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_of_equal_numbers_becomes_the_bias(dtype):
    """Its variance is 0: eps keeps the quotient finite."""
    x, upstream, gain, bias = drawn((3, 8), dtype, 1)
    x[:] = [[0.0], [5.0], [-1e4]]
    a, dx, _, _ = both_ways(x, upstream, gain, bias, "identity", True, dtype)
    np.testing.assert_allclose(a, np.broadcast_to(bias, a.shape), atol=1e-6)
    assert np.isfinite(dx).all()
