"""Gated linear units, forward and back, and the sum of matrices, against NumPy in float64 over shapes and dtypes."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from reference import ACTIVATION, run_kernel

from gpubp.kernels import gated, sums
from gpubp.kernels.activations import ACTIVATIONS
from gpubp.kernels.reductions import granule_count

DTYPES = (np.float32, np.float64)
# (rows, width of a): rows around 16, of which a granule is a multiple, and around 64 granules of 16, their most
EDGES = ((0, 3), (1, 1), (15, 7), (16, 7), (17, 7), (1024, 2), (1025, 2), (2049, 1), (1, 4097), (127, 65))
shapes = st.tuples(st.integers(0, 70), st.integers(1, 40)) | st.sampled_from(EDGES)
seeds = st.integers(0, 2**32 - 1)


def draw(seed, dtype, *shapes):
    rng = np.random.default_rng(seed)
    return [(3 * rng.standard_normal(shape)).astype(dtype) for shape in shapes]


def forward(name, dtype, z, b, *, keep):
    """(a, what stands in z then)."""
    g, z, a = ACTIVATIONS[name], z.copy(), np.full((len(z), len(b) // 2), np.nan, dtype)
    run_kernel(gated.gated_keep if keep else gated.gated, dtype, (z, b, a), (g.f, g.d_f) if keep else (g.f,))
    return a, z


def back(dtype, upstream, saved):
    """(delta, db)."""
    delta, db = saved.copy(), np.full(saved.shape[1], np.nan, dtype)
    partials = np.full((granule_count(len(saved)), saved.shape[1]), np.nan, dtype)
    run_kernel(gated.gated_delta, dtype, (upstream.copy(), delta, db, partials))
    return delta, db


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["silu", "sigmoid"])
@given(shape=shapes, seed=seeds)
@example(shape=(1, 1), seed=0)
def test_forward_and_back_over_shapes(name, dtype, shape, seed):
    rows, n = shape
    z, b, upstream = draw(seed, dtype, (rows, 2 * n), (2 * n,), shape)
    u, v = np.split((z + b).astype(np.float64), 2, axis=1)  # as the kernel rounds it
    f, d_f = ACTIVATION[name]
    a, untouched = forward(name, dtype, z, b, keep=False)
    kept_a, saved = forward(name, dtype, z, b, keep=True)
    np.testing.assert_array_equal(untouched, z)
    np.testing.assert_array_equal(kept_a, a)
    eps, size = 40 * float(np.finfo(dtype).eps), np.maximum(np.abs(v), 1e-30)
    assert (np.abs(a - f(u) * v) <= eps * np.abs(f(u) * v) + 1e-300).all()
    assert (np.abs(saved[:, :n] - v * d_f(u)) <= eps * size).all()
    assert (np.abs(saved[:, n:] - f(u)) <= eps * np.abs(f(u)) + 1e-300).all()
    delta, db = back(dtype, upstream, saved)
    exact = np.tile(upstream.astype(np.float64), (1, 2)) * saved
    assert (np.abs(delta - exact) <= eps * np.abs(exact)).all()
    assert (np.abs(db - exact.sum(axis=0)) <= (rows + 40) * eps / 40 * np.abs(exact).sum(axis=0)).all()


@given(shape=shapes, seed=seeds)
def test_every_row_is_summed_once_into_its_own_half(shape, seed):
    upstream, saved = (np.round(v) for v in draw(seed, np.float64, shape, (shape[0], 2 * shape[1])))
    delta, db = back(np.float64, upstream, saved)  # integers: every order is exact
    np.testing.assert_array_equal(delta, np.tile(upstream, (1, 2)) * saved)
    np.testing.assert_array_equal(db, delta.sum(axis=0))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_gate(name):
    z, b = draw(1, np.float64, (37, 38), (38,))
    u, v = np.split(z + b, 2, axis=1)
    f, d_f = ACTIVATION[name]
    a, saved = forward(name, np.float64, z, b, keep=True)
    np.testing.assert_allclose(a, f(u) * v, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(saved, np.hstack([v * d_f(u), f(u)]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_infinity_go_through(dtype):
    # [u | v]: NaN in the gate, NaN in the value, an infinite gate, a closed gate before an infinite value
    z = np.array([[np.nan, 1, np.inf, -np.inf, 2, np.nan, 3, np.inf]], dtype)
    a, saved = forward("silu", dtype, z, np.zeros(8, dtype), keep=True)
    assert np.isnan(a[0, [0, 1, 3]]).all()
    assert a[0, 2] == np.inf
    assert np.isnan(saved[0, [0, 1, 4]]).all()
    # ... and back to the two columns of their own
    upstream = np.array([[np.nan, 1, np.inf], [1, 1, 1]], dtype)
    delta, db = back(dtype, upstream, np.full((2, 6), 0.5, dtype))
    assert np.isnan(delta[0, [0, 3]]).all()
    assert np.isnan(db[[0, 3]]).all()
    assert (db[[2, 5]] == np.inf).all()
    np.testing.assert_array_equal(delta[1], 0.5)
    np.testing.assert_array_equal(db[[1, 4]], 1.0)


@pytest.mark.parametrize("dtype", DTYPES)
@given(shape=shapes, seed=seeds)
def test_sums_and_copies(dtype, shape, seed):
    x, y = draw(seed, dtype, shape, shape)
    if x.size:
        x.flat[0], y.flat[-1] = np.inf, np.nan
    out, copy = np.full_like(x, 7), np.full_like(x, 7)
    run_kernel(sums.add, dtype, (x, y, out))
    np.testing.assert_array_equal(out, x + y)
    run_kernel(sums.clone, dtype, (x, copy))
    np.testing.assert_array_equal(copy, x)
