"""Bias + activation, BP2 and BP3, and the products, against NumPy in float64 over shapes, dtypes and layouts."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from reference import ACTIVATION, run_kernel

from gpubp.kernels import dense
from gpubp.kernels.activations import ACTIVATIONS
from gpubp.kernels.reductions import block_count

DTYPES = (np.float32, np.float64)
# around a multiple of 8192 entries, where a reduction gets one block more, and around 64 blocks, their most
EDGES = (
    (0, 3),
    (1, 1),
    (8191, 1),
    (8192, 1),
    (16384, 1),
    (16385, 1),
    (1, 8193),
    (127, 129),
    (128, 128),
    (64, 9000),
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


def test_blocks_depend_on_the_shape_alone_and_stay_within_the_rows():
    assert [block_count(*shape) for shape in ((0, 5), (1, 10**6), (8192, 1), (16384, 1), (10**6, 1000))] == [
        1, 1, 1, 2, 64,
    ]  # fmt: skip
    for rows in range(70):
        for columns in (1, 500, 9000):
            assert 1 <= block_count(rows, columns) <= max(1, min(64, rows))


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
    run_kernel(dense.bias_activation_keep, dtype, (kept, b, a), (f,))
    close(inplace, ACTIVATION[name][0](expected_z.astype(np.float64)), dtype)
    np.testing.assert_array_equal(kept, expected_z)
    np.testing.assert_array_equal(a, inplace)


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


@given(shape=st.tuples(st.integers(0, 40), st.integers(1, 9)), blocks=st.integers(1, 50), seed=seeds)
def test_the_bias_gradient_does_not_depend_on_the_number_of_blocks(shape, blocks, seed):
    upstream, z = (
        np.round(v) for v in draw(seed, np.float64, shape, shape)
    )  # integers: every order is exact
    db, _ = _delta("relu", np.float64, upstream, z, blocks)
    np.testing.assert_array_equal(db, (upstream * (z > 0)).sum(axis=0))


def _delta(name, dtype, upstream, z, blocks=None):
    g = ACTIVATIONS[name]
    saved, d_f = (
        (z, g.d_f) if g.d_f_of_output is None else (ACTIVATION[name][0](z).astype(dtype), g.d_f_of_output)
    )
    delta, db = upstream.copy(), np.full(z.shape[1], np.nan, dtype)
    partials = np.full((blocks or block_count(*z.shape), z.shape[1]), np.nan, dtype)
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
