"""Bias + activation, BP2 and BP3, and the products, against NumPy in float64 over shapes, dtypes and layouts."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from reference import ACTIVATION, run_kernel

from gpubp.kernels import dense
from gpubp.kernels.activations import ACTIVATIONS
from gpubp.kernels.reductions import granule_count
from gpubp.kernels.team import TILE, granule

DTYPES = (np.float32, np.float64)
# around 16 rows, of which a granule is a multiple, and around 64 granules of 16, their most
EDGES = (
    (0, 3),
    (1, 1),
    (15, 7),
    (16, 7),
    (17, 7),
    (33, 7),
    (1023, 2),
    (1024, 2),
    (1025, 2),
    (2049, 1),
    (1, 8193),
    (127, 129),
)
shapes = st.tuples(st.integers(0, 70), st.integers(1, 40)) | st.sampled_from(EDGES)
seeds = st.integers(0, 2**32 - 1)


def draw(seed, dtype, *shapes, scale=3.0):
    rng = np.random.default_rng(seed)
    return [(scale * rng.standard_normal(shape)).astype(dtype) for shape in shapes]


def close(got, expected, dtype, scale=1.0):
    """Within a few roundings of `expected`, relative to it and to the `scale` of what was summed."""
    eps = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(got, expected, rtol=40 * eps, atol=40 * eps * scale)


def test_granules_are_multiples_of_16_rows_and_at_most_64():
    assert [granule_count(rows) for rows in (0, 1, 16, 17, 1024, 1025, 10**6)] == [1, 1, 1, 2, 64, 33, 64]
    for rows in range(3000):
        assert granule(rows) % TILE == 0
        assert 1 <= granule_count(rows) <= 64
        assert (granule_count(rows) - 1) * granule(rows) < max(rows, 1) <= granule_count(rows) * granule(rows)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["tanh", "gelu"])
@given(shape=shapes, seed=seeds)
def test_bias_and_activation_over_shapes(name, dtype, shape, seed):
    z, b = draw(seed, dtype, shape, shape[1:])
    expected_z = z + b
    f = ACTIVATIONS[name].f
    inplace = z.copy()
    run_kernel(dense.bias_activation, dtype, (inplace, b), (f,))
    kept, a = z.copy(), np.full_like(z, np.nan)
    run_kernel(dense.bias_activation_keep, dtype, (kept, b, a), (f, ACTIVATIONS[name].d_f))
    close(inplace, ACTIVATION[name][0](expected_z.astype(np.float64)), dtype)
    close(kept, ACTIVATION[name][1](expected_z.astype(np.float64)), dtype)
    np.testing.assert_array_equal(a, inplace)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_row_has_the_same_bits_however_wide_it_is(name, dtype):
    """Wide rows go through f with their biases, narrow ones after them and several as one; all in groups, and rests."""
    z, b = draw(0, dtype, (35, 200), (200,))
    z[:, 3], b[3], z[2, 5], z[3, 5], z[4, 6] = -0.0, -0.0, np.nan, np.inf, -np.inf
    f, d_f = ACTIVATIONS[name].f, ACTIVATIONS[name].d_f

    def passes(n):
        inplace, kept = z[:, :n].copy(), z[:, :n].copy()
        a, bias = np.full_like(kept, np.nan), b[:n].copy()
        run_kernel(dense.bias_activation, dtype, (inplace, bias), (f,))
        run_kernel(dense.bias_activation_keep, dtype, (kept, bias, a), (f, d_f))
        return inplace, kept, a

    wide = passes(200)
    for n in (1, 7, 16, 31, 32, 33, 64, 100, 127):
        for narrow, expected in zip(passes(n), wide, strict=True):
            np.testing.assert_array_equal(narrow, expected[:, :n])
            number = ~np.isnan(narrow)  # the sign of a NaN means nothing
            np.testing.assert_array_equal(np.signbit(narrow)[number], np.signbit(expected[:, :n])[number])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["tanh", "gelu"])
@given(shape=shapes, seed=seeds)
@example(shape=(1, 1), seed=0)
def test_delta_and_bias_gradient_over_shapes(name, dtype, shape, seed):
    upstream, z = draw(seed, dtype, shape, shape)
    db, delta = _delta(name, dtype, upstream, z)
    expected = upstream.astype(np.float64) * ACTIVATION[name][1](z.astype(np.float64))
    # f' from the output (1 - a^2) is right to some roundings of 1; a sum of n terms errs by n roundings of their sizes
    eps, size = np.finfo(dtype).eps, np.abs(upstream).astype(np.float64)
    assert (np.abs(delta - expected) <= 40 * eps * size).all()
    assert (
        np.abs(db - expected.sum(axis=0)) <= (40 * size + len(z) * np.abs(expected)).sum(axis=0) * eps
    ).all()


@given(shape=shapes, seed=seeds)
def test_every_row_is_summed_once(shape, seed):
    upstream, z = (
        np.round(v) for v in draw(seed, np.float64, shape, shape)
    )  # integers: every order is exact
    db, _ = _delta("relu", np.float64, upstream, z)
    np.testing.assert_array_equal(db, (upstream * (z > 0)).sum(axis=0))


def _delta(name, dtype, upstream, z):
    """(db, delta) as the backend makes them: of the output, or of the derivative that the forward pass has saved."""
    g = ACTIVATIONS[name]
    if g.d_f_of_output is None:
        saved, d_f = z.copy(), dense.given
        forward = (saved, np.zeros(z.shape[1], dtype), np.empty_like(z))
        run_kernel(dense.bias_activation_keep, dtype, forward, (g.f, g.d_f))
    else:
        saved, d_f = ACTIVATION[name][0](z).astype(dtype), g.d_f_of_output
    delta, db = upstream.copy(), np.full(z.shape[1], np.nan, dtype)
    partials = np.full((granule_count(len(z)), z.shape[1]), np.nan, dtype)
    run_kernel(dense.delta, dtype, (delta, saved, db, partials), (d_f,))
    return db, delta


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation(name):
    z, b, upstream = draw(1, np.float64, (37, 19), (19,), (37, 19))
    f, d_f = ACTIVATION[name]
    out = z.copy()
    run_kernel(dense.bias_activation, np.float64, (out, b), (ACTIVATIONS[name].f,))
    np.testing.assert_allclose(out, f(z + b), rtol=1e-12, atol=1e-14)
    db, delta = _delta(name, np.float64, upstream, z)
    np.testing.assert_allclose(delta, upstream * d_f(z), rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(db, (upstream * d_f(z)).sum(axis=0), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["relu", "tanh", "gelu"])
def test_nan_and_infinity_go_through(name, dtype):
    z = np.array([[np.nan, np.inf, -np.inf, 1.0]], dtype)
    run_kernel(dense.bias_activation, dtype, (z, np.zeros(4, dtype)), (ACTIVATIONS[name].f,))
    low, high = {"relu": (0, np.inf), "tanh": (-1, 1), "gelu": (0, np.inf)}[name]
    np.testing.assert_array_equal(z[0, :3], np.array([np.nan, high, low], dtype))
    # ... and a NaN or infinite upstream reaches delta and db of its own column alone
    upstream = np.array([[np.nan, np.inf, 1.0, 2.0], [1.0, 1.0, 1.0, 2.0]], dtype)
    db, delta = _delta(name, dtype, upstream, np.full((2, 4), 0.5, dtype))
    assert np.isnan(delta[0, 0])
    assert np.isnan(db[0])
    assert delta[0, 1] == db[1] == np.inf
    assert np.isfinite(delta[1]).all()
    assert np.isfinite(db[2:]).all()


def test_a_nan_pre_activation_gives_a_nan_delta_where_the_derivative_depends_on_it():
    for name in ("gelu", "tanh", "silu", "sigmoid"):
        _, delta = _delta(name, np.float64, np.ones((1, 1)), np.full((1, 1), np.nan))
        assert np.isnan(delta).all(), name
