"""BatchNorm's kernels against NumPy in float64 over shapes and dtypes."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from reference import ACTIVATION, run_kernel

from gpubp.backend import State, get_backend, threads
from gpubp.kernels import batch_norm, norms
from gpubp.kernels.activations import ACTIVATIONS
from gpubp.kernels.reductions import granule_count
from gpubp.kernels.replay import COUNTERS, STOPPED

identity = ACTIVATIONS["identity"]
DTYPES = (np.float32, np.float64)
EPS = 1e-3
shapes = st.tuples(st.integers(2, 70), st.integers(1, 40)) | st.sampled_from(
    ((1025, 2), (2, 4099), (127, 129))
)


def drawn(shape, dtype, seed):
    rng = np.random.default_rng(seed)
    x, upstream = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    gain, bias = (rng.standard_normal(shape[1]).astype(dtype) for _ in range(2))
    return (3 * x + 1).astype(dtype), upstream, gain, bias


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["tanh", "gelu"])
@given(shape=shapes, seed=st.integers(0, 999))
@example(shape=(1025, 2), seed=0)
def test_both_ways(name, dtype, shape, seed):
    x, upstream, gain, bias = drawn(shape, dtype, seed)
    g, n = ACTIVATIONS[name], shape[1]
    a, moments = np.full_like(x, np.nan), np.full((batch_norm.KEPT, n), np.nan, dtype)
    partials = np.full((2 * granule_count(len(x)), n), np.nan, dtype)
    operands = (x, gain, bias, np.array([EPS], dtype), a, moments, partials)
    run_kernel(batch_norm.batch_normalize, dtype, operands, (g.f,))
    dx, dgain, dbias = upstream.copy(), np.full(n, np.nan, dtype), np.full(n, np.nan, dtype)
    operands = (dx, x, moments, gain, bias, dgain, dbias, partials)
    run_kernel(batch_norm.batch_normalize_delta, dtype, operands, (g.d_f,))
    f, d_f = ACTIVATION[name]
    x, upstream, gain, bias = (v.astype(np.float64) for v in (x, upstream, gain, bias))
    r = 1 / np.sqrt(x.var(axis=0) + EPS)
    n = (x - x.mean(axis=0)) * r
    d = upstream * d_f(gain * n + bias)
    right = gain * r * (d - d.mean(axis=0) - n * (d * n).mean(axis=0))
    eps = float(np.finfo(dtype).eps)
    bound = 100 * eps * (1 + np.abs(x).max(axis=0) * r) ** 2 * (1 + np.abs(gain)) ** 2
    steep = np.abs(upstream).max(axis=0) * (1 + r) * len(x) ** 0.5
    assert (np.abs(a - f(gain * n + bias)) <= bound).all()
    assert (np.abs(dx - right) <= 4 * bound * steep).all()
    assert (np.abs(dgain - (d * n).sum(axis=0)) <= 4 * bound * steep * len(x) ** 0.5).all()
    assert (np.abs(dbias - d.sum(axis=0)) <= 4 * bound * steep * len(x) ** 0.5).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_moments_far_from_0_lose_no_more_than_their_rounding(dtype):
    """Sums of squares less the square of the sum would have no digit left of this variance in float32."""
    x = (1e4 + np.random.default_rng(0).standard_normal((3000, 3))).astype(dtype)
    a, moments = np.empty_like(x), np.empty((batch_norm.KEPT, 3), dtype)
    partials = np.empty((2 * granule_count(len(x)), 3), dtype)
    ones, eps = np.ones(3, dtype), np.array([EPS], dtype)
    run_kernel(batch_norm.batch_normalize, dtype, (x, ones, ones, eps, a, moments, partials), (identity.f,))
    exact = x.astype(np.float64)
    rtol = 1e-3 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(moments[norms.MEAN], exact.mean(axis=0), rtol=rtol)
    np.testing.assert_allclose(moments[batch_norm.VARIANCE], exact.var(axis=0), rtol=rtol)
    np.testing.assert_allclose(
        moments[norms.INVERSE], 1 / np.sqrt(exact.var(axis=0) + EPS), rtol=rtol, atol=0
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_stays_in_its_column(dtype):
    x, upstream, gain, bias = drawn((40, 6), dtype, 0)
    ops, g, found = get_backend("cpu"), ACTIVATIONS["tanh"], []
    for bad in (False, True):
        if bad:
            x[3, 2], x[20, 5], upstream[33, 1] = np.nan, np.inf, np.nan
        dgain, dbias = np.zeros_like(gain), np.zeros_like(bias)
        a, moments = ops.batch_normalize(x, gain, bias, np.array([EPS], dtype), g)
        dx = ops.batch_normalize_delta(upstream.copy(), x, moments, gain, bias, g, dgain, dbias)
        found.append((a, dx, dgain, dbias))
    for before, after in zip(*found, strict=True):
        np.testing.assert_array_equal(after[..., [0, 3, 4]], before[..., [0, 3, 4]])
    a, dx, dgain, dbias = found[1]
    assert np.isnan(a[:, [2, 5]]).all()
    assert np.isfinite(a[:, 1]).all()
    for array in (dx, dgain, dbias):
        assert np.isnan(array[..., [1, 2, 5]]).all()


def test_one_member_and_two_give_the_same_bits(monkeypatch):
    ops, g, eps = get_backend("cpu"), ACTIVATIONS["tanh"], np.array([EPS], np.float32)
    found = []
    for size in (1, 2):
        monkeypatch.setattr(threads, "_threads", size)
        x, upstream, gain, bias = drawn((333, 45), np.float32, 2)
        dgain, dbias, mean, variance = (np.ones_like(gain) for _ in range(4))
        a, moments = ops.batch_normalize(x, gain, bias, eps, g)
        dx = ops.batch_normalize_delta(upstream, x, moments, gain, bias, g, dgain, dbias)
        ops.follow(mean, variance, moments, np.array([0.1]), len(x), State(ops, 0))
        running = ops.normalize_by_running(x, gain, bias, eps, g, mean, variance)
        found.append([v.tobytes() for v in (a, moments, dx, dgain, dbias, mean, variance, running)])
    assert found[0] == found[1]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stopped", [0, 1])
def test_running_moments_follow_unless_the_step_was_stopped(dtype, stopped):
    rng = np.random.default_rng(0)
    mean, variance = (rng.random(7).astype(dtype) for _ in range(2))
    moments, before = rng.random((batch_norm.KEPT, 7)).astype(dtype), (mean.copy(), variance.copy())
    counters = np.zeros(COUNTERS, np.int64)
    counters[STOPPED] = stopped
    run_kernel(batch_norm.follow, dtype, (mean, variance, moments, np.array([0.1]), counters), (), (5,))
    batch = moments[norms.MEAN], 5 / 4 * moments[batch_norm.VARIANCE]
    for found, old, new in zip((mean, variance), before, batch, strict=True):
        np.testing.assert_allclose(found, old if stopped else 0.9 * old + 0.1 * new, rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [0, 1, 20])
def test_predictions_take_the_running_moments(dtype, rows):
    x, _, gain, bias = drawn((rows, 5), dtype, 3)
    mean, variance = np.abs(drawn((2, 5), dtype, 4)[0])
    found = get_backend("cpu").normalize_by_running(
        x, gain, bias, np.array([EPS], dtype), ACTIVATIONS["tanh"], mean.copy(), variance.copy()
    )
    expected = np.tanh(gain * (x - mean) / np.sqrt(variance + EPS) + bias)
    np.testing.assert_allclose(found, expected, rtol=1e-4 if dtype == np.float32 else 1e-12, atol=1e-6)
