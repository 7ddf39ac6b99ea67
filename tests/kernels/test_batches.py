"""Gathering a batch by the permutation, and moving the counters on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import run_kernel

from gpubp.kernels import batches
from gpubp.kernels.replay import CURSOR, GRADIENT_NOT_FINITE, STEP, STOPPED


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@given(examples=st.integers(1, 40), n=st.integers(1, 9), data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_gather_takes_the_rows_that_the_permutation_names(dtype, examples, n, data, seed):
    rng = np.random.default_rng(seed)
    batch = data.draw(st.integers(0, examples))
    first = data.draw(st.integers(0, examples - batch))
    source, order = (100 * rng.standard_normal((examples, n))).astype(dtype), rng.permutation(examples)
    out, counters = np.zeros((batch, n), dtype), np.array([first, 3, 0])
    run_kernel(batches.gather, dtype, (source, order, out, counters))
    np.testing.assert_array_equal(out, source[order[first : first + batch]])
    assert list(counters) == [first, 3, 0]


def test_gather_takes_vectors():
    source, order, out = np.arange(5) * 10, np.array([4, 2, 0, 1, 3]), np.zeros(2, np.int64)
    run_kernel(batches.gather, np.int64, (source, order, out, np.array([1, 0, 0])))
    assert list(out) == [20, 0]


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(batch=st.integers(0, 70), n=st.integers(1, 9), rate=st.floats(0, 0.99), seed=st.integers(0, 2**32 - 1))
def test_smoothed_targets(dtype, labels, batch, n, rate, seed):
    rng = np.random.default_rng(seed)
    classes, rates = rng.integers(0, n, batch), np.array([1 - rate, rate / n])
    y = np.eye(n)[classes] if labels else rng.random((batch, n))
    out = np.full((batch, n), 7, dtype)
    given_y = classes if labels else y.astype(dtype)
    run_kernel(batches.smooth, dtype, (given_y, out, rates), (labels,))
    exact = (1 - rate) * (y if labels else given_y.astype(float)) + rate / n
    np.testing.assert_allclose(out, exact, rtol=4 * np.finfo(dtype).eps, atol=np.finfo(dtype).tiny)


def advance(counters, rates, batch, start, lr=0.5):
    counters, hyper = np.array(counters), np.array([lr, 1.0, 7.0])
    run_kernel(batches.advance, np.float64, (counters, hyper, np.array(rates)), integers=(batch, start))
    assert list(hyper[1:]) == [1, 7]
    return list(counters), hyper[0]


@given(step=st.integers(0, 20), start=st.integers(0, 20), batch=st.integers(1, 512), n=st.integers(0, 6))
def test_advance_counts_and_sets_the_rate_of_the_next_step(step, start, batch, n):
    rates = [0.01 * (k + 1) for k in range(n)]
    counters, lr = advance([64, step, 0], rates, batch, start)
    assert counters == [64 + batch, step + 1, 0]
    k = step + 1 - start
    assert lr == (rates[k % n] if n and k >= 0 else 0.5)  # rates cover an epoch and begin anew with the next


def test_a_stopped_run_stays_where_it_stopped():
    counters, lr = advance([64, 2, GRADIENT_NOT_FINITE], [0.1, 0.2, 0.3, 0.4], 32, 0)
    assert (counters[CURSOR], counters[STEP], counters[STOPPED]) == (64, 2, GRADIENT_NOT_FINITE)
    assert lr == 0.5


def test_every_line_that_a_row_lies_on_is_called_into_the_cache():
    from gpubp.kernels.prefetch import lines_of

    assert list(lines_of(128, 64)) == [128]
    assert list(lines_of(144, 64)) == [
        128,
        192,
    ]  # as long as a line, but begins 16 bytes behind one's beginning
    assert list(lines_of(144, 48)) == [128]
