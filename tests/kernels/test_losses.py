"""Every loss in its fused pass: value, delta and bias gradient against NumPy, weights, extremes, and differences."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import LOSS, loss_delta, run_kernel

from gpubp.errors import ConfigError
from gpubp.kernels import loss_passes, losses
from gpubp.kernels.activations import ACTIVATIONS
from gpubp.kernels.losses import LOSSES
from gpubp.kernels.reductions import granule_count
from gpubp.kernels.replay import LOSS_NOT_FINITE, STOPPED

DTYPES = (np.float32, np.float64)
SOFTMAX = ("softmax_cross_entropy", "focal")
# around 16 rows, of which a granule is a multiple, and around 64 granules of 16, their most
EDGES = ((0, 3), (1, 1), (15, 7), (16, 7), (17, 7), (1023, 2), (1024, 2), (1025, 2), (1, 8193), (127, 129))
shapes = st.tuples(st.integers(0, 40), st.integers(1, 12)) | st.sampled_from(EDGES)
seeds = st.integers(0, 2**32 - 1)


def evaluate(name, z, b, y, w, activation="identity", counters=None):
    """Loss, delta and db by the kernel, as the backend launches it; and the statistics."""
    loss, g, dtype = LOSSES[name], ACTIVATIONS[activation], z.dtype
    delta, db = z.copy(), np.full(z.shape[1], np.nan, dtype)
    partials = np.full((2 * granule_count(len(z)), z.shape[1]), np.nan, dtype)
    stats, counters = np.zeros(losses.STATS), np.zeros(3, np.int64) if counters is None else counters
    operands = (delta, b, y, w, db, partials, stats, counters)
    if loss.softmax:
        run_kernel(
            loss_passes.softmax_loss, dtype, operands, (g.f, g.d_f, loss.l, loss.d_l, y.dtype == np.int64)
        )
    else:
        scalars = (g.f, g.d_f, loss.l, loss.d_l, loss.mean_over_outputs)
        run_kernel(loss_passes.elementwise_loss, dtype, operands, scalars)
    return stats[losses.LOSS], delta, db, stats


def batch(name, seed, shape, dtype, labels=False):
    rng = np.random.default_rng(seed)
    z, b, w = 2 * rng.standard_normal(shape), rng.standard_normal(shape[1]), rng.uniform(0, 2, shape[0])
    if LOSSES[name].softmax:
        y = rng.integers(0, shape[1], shape[0]) if labels else rng.dirichlet(np.ones(shape[1]), shape[0])
    elif name == "binary_cross_entropy":
        y = rng.uniform(0, 1, shape)
    elif name == "poisson":
        y = rng.poisson(2.0, shape)
    else:
        y = rng.standard_normal(shape)
    return [v.astype(dtype) for v in (z, b)] + [y if labels else y.astype(dtype), w.astype(dtype)]


def check(name, arrays, activation="identity"):
    z, b, y, w = arrays
    eps, n = float(np.finfo(z.dtype).eps), len(z)
    loss, delta, db, stats = evaluate(name, z, b, y, w, activation)
    expected, expected_delta, expected_db, loss_size, delta_size = loss_delta(name, activation, z, b, y, w)
    assert abs(loss - expected) <= (40 + n) * eps * loss_size
    assert (np.abs(delta - expected_delta) <= 40 * eps * delta_size).all()
    assert (np.abs(db - expected_db) <= (40 + n) * eps * delta_size.sum(axis=0)).all()
    assert (
        stats[losses.WEIGHT] == stats[losses.WEIGHT_SUM] == pytest.approx(w.sum(dtype=np.float64), rel=1e-12)
    )
    assert stats[losses.LOSS_SUM] == pytest.approx(loss * stats[losses.WEIGHT], rel=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LOSSES)
@given(shape=shapes, seed=seeds)
def test_every_loss_over_shapes(name, dtype, shape, seed):
    check(name, batch(name, seed, shape, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SOFTMAX)
@given(shape=shapes, seed=seeds)
def test_class_numbers_are_one_hot_targets(name, dtype, shape, seed):
    z, b, y, w = batch(name, seed, shape, dtype, labels=True)
    check(name, (z, b, y, w))
    one_hot = np.eye(shape[1], dtype=dtype)[y]
    for got, same in zip(evaluate(name, z, b, y, w)[:3], evaluate(name, z, b, one_hot, w)[:3], strict=True):
        np.testing.assert_allclose(got, same, rtol=50 * np.finfo(dtype).eps, atol=50 * np.finfo(dtype).eps)


@pytest.mark.parametrize("activation", ["tanh", "softplus", "gelu"])
@pytest.mark.parametrize("name", ["half_sse", *SOFTMAX])
@given(shape=st.tuples(st.integers(0, 20), st.integers(1, 8)), seed=seeds)
def test_an_output_activation_is_applied_and_differentiated(name, activation, shape, seed):
    check(name, batch(name, seed, shape, np.float64), activation)


@pytest.mark.parametrize("name", LOSSES)
@given(seed=seeds)
def test_delta_is_the_derivative_of_the_loss(name, seed):
    z, b, y, w = batch(name, seed, (3, 4), np.float64)
    _, delta, _, _ = evaluate(name, z, b, y, w)
    rng = np.random.default_rng(seed)
    i, j, h = rng.integers(3), rng.integers(4), 1e-6
    if name in LOSS and name in ("mae", "huber"):  # away from the kinks by more than h
        r = abs(z[i, j] + b[j] - y[i, j])
        z[i, j] += 1e-3 * (min(r, abs(r - 1)) < 1e-4)
        _, delta, _, _ = evaluate(name, z, b, y, w)
    up, down = z.copy(), z.copy()
    up[i, j] += h
    down[i, j] -= h
    above, below = (evaluate(name, z, b, y, w)[0] for z in (up, down))
    rounding = (
        16 * np.finfo(np.float64).eps * max(1.0, abs(above), abs(below)) / h
    )  # of the two losses, over h
    assert delta[i, j] == pytest.approx((above - below) / (2 * h), rel=1e-6, abs=max(1e-8, rounding))


def test_means_and_sums_over_outputs():
    z, y = np.array([[3.0, 0.5]]), np.array([[1.0, 0.0]])
    zero, w = np.zeros(2), np.ones(1)
    values = {name: evaluate(name, z, zero, y, w)[0] for name in LOSSES}
    logistic = np.logaddexp(0, z) - y * z
    assert values["half_sse"] == 0.5 * 4.25
    assert values["sse"] == 4.25
    assert values["mse"] == 4.25 / 2
    assert values["mae"] == 2.5 / 2
    assert values["huber"] == (1.5 + 0.125) / 2
    assert values["poisson"] == pytest.approx((np.exp(3) - 3 + np.exp(0.5)) / 2, rel=1e-15)
    assert values["binary_cross_entropy"] == pytest.approx(logistic.sum(), rel=1e-15)
    assert values["softmax_cross_entropy"] == pytest.approx(np.log1p(np.exp(-2.5)), rel=1e-14)
    rest = 1 / (1 + np.exp(2.5))
    assert values["focal"] == pytest.approx(rest**2 * np.log1p(np.exp(-2.5)), rel=1e-13)


def test_subgradient_of_the_absolute_error_at_zero_is_zero():
    _, delta, _, _ = evaluate("mae", np.ones((1, 1)), np.zeros(1), np.ones((1, 1)), np.ones(1))
    assert delta[0, 0] == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("name", SOFTMAX)
@given(seed=seeds, shift=st.sampled_from([1000.0, -1000.0, 8192.0]))
def test_softmax_is_invariant_under_a_shift_of_the_logits(name, dtype, labels, seed, shift):
    z, b, y, w = batch(name, seed, (5, 4), dtype, labels)
    z = np.round(z * 64) / 64  # a grid on which adding the shift is exact in float32
    b = np.zeros_like(b)
    w = w + dtype(0.1)
    for got, same in zip(
        evaluate(name, z + dtype(shift), b, y, w)[:3], evaluate(name, z, b, y, w)[:3], strict=True
    ):
        np.testing.assert_array_equal(got, same)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("labels", [True, False])
def test_softmax_at_huge_logits(dtype, labels):
    z = np.array([[1e4, -1e4, 0], [-1e4, -1e4, -1e4], [1e4, 1e4, -1e4]], dtype)
    labelled = np.array([0, 1, 2])
    y = labelled if labels else np.eye(3, dtype=dtype)[labelled]
    loss, delta, db, _ = evaluate("softmax_cross_entropy", z, np.zeros(3, dtype), y, np.ones(3, dtype))
    assert loss == pytest.approx((0 + np.log(3) + 2e4 + np.log(2)) / 3, rel=1e-6)
    p = np.array([[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0]])
    np.testing.assert_allclose(delta, (p - np.eye(3)[labelled]) / 3, atol=1e-7)
    np.testing.assert_allclose(db, ((p - np.eye(3)[labelled]) / 3).sum(axis=0), atol=1e-7)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("labels", [True, False])
def test_focal_at_huge_logits(dtype, labels):
    z = np.array([[1e4, -1e4, 0], [-1e4, -1e4, -1e4], [1e4, 1e4, -1e4]], dtype)
    labelled = np.array([0, 1, 2])
    y = labelled if labels else np.eye(3, dtype=dtype)[labelled]
    loss, delta, db, _ = evaluate("focal", z, np.zeros(3, dtype), y, np.ones(3, dtype))
    assert loss == pytest.approx((0 + 4 / 9 * np.log(3) + 2e4 + np.log(2)) / 3, rel=1e-6)
    p, pull = np.array([[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0]]), np.zeros((3, 3))
    pull[1, 1], pull[2, 2] = 2 / 3 * (2 / 3 + 2 / 3 * np.log(3)), 1
    expected = (p * pull.sum(axis=1, keepdims=True) - pull) / 3
    np.testing.assert_allclose(delta, expected, atol=1e-7)
    np.testing.assert_allclose(db, expected.sum(axis=0), atol=1e-7)


def test_focal_is_cross_entropy_times_the_square_of_what_is_missing():
    """In float64 against the formula of the paper, over probabilities from 1e-300 to 1 - 1e-12."""
    log_p = np.concatenate([-np.logspace(-12, 2.8, 400)])
    p = np.exp(log_p)
    found = np.array([losses.focal(float(v)) for v in log_p])
    np.testing.assert_allclose(found, -((-np.expm1(log_p)) ** 2) * log_p, rtol=1e-13)
    slopes = np.array([losses.d_focal(float(v)) for v in log_p])
    rest = -np.expm1(log_p)
    np.testing.assert_allclose(slopes, 2 * rest * p * log_p - rest**2, rtol=1e-13)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sigmoid_cross_entropy_at_huge_logits(dtype):
    z = np.array([[1e4, 1e4, -1e4, -1e4]], dtype)
    y = np.array([[1, 0, 1, 0]], dtype)
    loss, delta, _, _ = evaluate("binary_cross_entropy", z, np.zeros(4, dtype), y, np.ones(1, dtype))
    assert loss == pytest.approx(2e4, rel=1e-6)
    np.testing.assert_array_equal(delta, [[0, 1, -1, 0]])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["half_sse", "sse", "mse", "mae", "huber"])
def test_distances_at_huge_outputs(name, dtype):
    z = np.array([[1e4, -1e4]], dtype)
    loss, delta, db, _ = evaluate(name, z, np.zeros(2, dtype), np.zeros((1, 2), dtype), np.ones(1, dtype))
    expected, expected_delta, *_ = loss_delta(name, "identity", z, np.zeros(2), np.zeros((1, 2)), np.ones(1))
    assert loss == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(delta, expected_delta, rtol=1e-6)
    np.testing.assert_allclose(db, expected_delta[0], rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
@given(seed=seeds, factor=st.floats(1e-3, 1e3))
def test_weights_are_relative_and_a_zero_weight_removes_an_example(name, seed, factor):
    z, b, y, w = batch(name, seed, (6, 3), np.float64)
    w[2] = 0
    w[0] += 0.5
    loss, delta, db, _ = evaluate(name, z, b, y, w)
    scaled = evaluate(name, z, b, y, factor * w)
    keep = np.arange(6) != 2
    without = evaluate(name, z[keep], b, y[keep], w[keep])
    for other_loss, other_delta, other_db in (scaled[:3], (without[0], without[1], without[2])):
        assert loss == pytest.approx(other_loss, rel=1e-12)
        rows = delta if len(other_delta) == 6 else delta[keep]
        np.testing.assert_allclose(rows, other_delta, rtol=1e-12, atol=1e-16)
        np.testing.assert_allclose(db, other_db, rtol=1e-12, atol=1e-14)
    assert not delta[2].any()


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_that_weighs_nothing_has_loss_and_gradient_zero(name):
    z, b, y, w = batch(name, 0, (4, 3), np.float64)
    loss, delta, db, stats = evaluate(name, z, b, y, 0 * w)
    assert loss == stats[losses.WEIGHT_SUM] == 0
    assert not delta.any()
    assert not db.any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("labels", [True, False])
def test_a_loss_that_is_not_finite_stops_the_run_and_stays_out_of_the_epoch(name, bad, labels):
    if labels and not LOSSES[name].softmax:
        labels = False
    z, b, y, w = batch(name, 0, (4, 3), np.float64, labels)
    z[2, 1] = bad
    counters = np.zeros(3, np.int64)
    loss, _, _, stats = evaluate(name, z, b, y, w, counters=counters)
    assert not np.isfinite(loss)
    assert counters[STOPPED] == LOSS_NOT_FINITE
    assert stats[losses.LOSS_SUM] == stats[losses.WEIGHT_SUM] == 0


def test_an_earlier_cause_is_kept():
    z, b, y, w = batch("mse", 0, (4, 3), np.float64)
    counters = np.array([0, 0, 2])
    evaluate("mse", np.nan * z, b, y, w, counters=counters)
    assert counters[STOPPED] == 2


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'softmax_cross_entropy'"):
        losses.loss("softmax_crossentropy")
