"""Max-norm against NumPy: shapes, teams, what is not finite, a step that was stopped."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from reference import run_kernel

from gpubp.kernels.constraints import max_norm
from gpubp.kernels.replay import COUNTERS, GRADIENT_NOT_FINITE, STOPPED

WIDTHS = st.integers(0, 40) | st.sampled_from([64, 97])


def constrained(w, limit, *, stopped=0, size=1):
    w, counters = w.copy(), np.zeros(COUNTERS, np.int64)
    counters[STOPPED] = stopped
    run_kernel(max_norm, w.dtype, (w, np.array([limit]), counters, np.full(w.shape[1], np.nan)), size=size)
    return w


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(
    n_in=WIDTHS,
    n_out=WIDTHS,
    scale=st.sampled_from([1e-18, 0.3, 1e18]),
    share=st.floats(0.2, 2),
    size=st.sampled_from([1, 2, 3]),
    seed=st.integers(0, 2**32 - 1),
)
@example(n_in=64, n_out=97, scale=1e-18, share=1.0, size=1, seed=0)
def test_over_shapes(dtype, n_in, n_out, scale, share, size, seed):
    w = (scale * np.random.default_rng(seed).standard_normal((n_in, n_out))).astype(dtype)
    norms = np.linalg.norm(w.astype(np.float64), axis=0)
    limit = share * (np.median(norms) if n_in and n_out else 1.0)
    factors = np.where(norms > limit, limit / np.where(norms > 0, norms, 1), 1)
    found = constrained(w, limit, size=size)
    np.testing.assert_allclose(found, w * factors, rtol=4 * np.finfo(dtype).eps, atol=0)
    # A column whose norm is the limit itself, as the median's may be, is shortened or not as its sum of squares rounds.
    below = norms < limit * (1 - 1e-13)  # both add up in float64
    np.testing.assert_array_equal(found[:, below], w[:, below])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_lost_weights_stay_to_be_found(bad):
    w = np.full((5, 3), 2.0)
    w[2, 1] = bad
    found = constrained(w, 1.0)
    np.testing.assert_array_equal(found[:, 1], w[:, 1])
    np.testing.assert_allclose(np.linalg.norm(found[:, [0, 2]], axis=0), 1)


def test_a_stopped_step_changes_nothing():
    w = np.full((5, 3), 2.0)
    np.testing.assert_array_equal(constrained(w, 1.0, stopped=GRADIENT_NOT_FINITE), w)
