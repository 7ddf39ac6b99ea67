"""Embeddings against NumPy: shapes, teams, numbers that are no category."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import run_kernel

from gpubp.kernels.embedding import embed, embedding_gradient

COUNTS = st.dictionaries(st.integers(0, 6), st.integers(1, 40), min_size=1, max_size=4)


def case(counts, others, batch, size, dtype, seed):
    """x, the table, delta, the columns that are no categories, the plan; `counts` in the order of columns."""
    rng = np.random.default_rng(seed)
    n_in = max(counts, default=0) + 1 + others
    x = rng.standard_normal((batch, n_in)).astype(dtype)
    for column, count in counts.items():
        x[:, column] = rng.integers(0, count, batch)
    passed = np.array([j for j in range(n_in) if j not in counts], np.int64)
    n = np.array([*counts.values()])
    plan = np.stack([[*counts], np.cumsum(n) - n, n], axis=1).astype(np.int64)
    table = rng.standard_normal((n.sum(), size)).astype(dtype)
    delta = rng.standard_normal((batch, len(passed) + len(counts) * size)).astype(dtype)
    return x, table, delta, passed, plan


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(
    counts=COUNTS,
    others=st.integers(0, 3),
    batch=st.integers(0, 70),
    size=st.sampled_from([1, 2, 8, 17]),
    team=st.sampled_from([1, 2, 3]),
    seed=st.integers(0, 2**32 - 1),
)
def test_over_shapes(dtype, counts, others, batch, size, team, seed):
    counts = dict(sorted(counts.items()))
    x, table, delta, passed, plan = case(counts, others, batch, size, dtype, seed)
    a = np.full(delta.shape, np.nan, dtype)
    run_kernel(embed, dtype, (x, table, a, passed, plan), size=team)
    rows = [first + x[:, column].astype(int) for column, first, _ in plan]
    np.testing.assert_array_equal(a, np.hstack([x[:, passed], *(table[r] for r in rows)]))
    found, expected = np.full(table.shape, np.nan, dtype), np.zeros(table.shape)
    run_kernel(embedding_gradient, dtype, (x, delta, found, plan), size=team)
    for k, r in enumerate(rows):
        start = len(passed) + k * size
        np.add.at(expected, r, delta[:, start : start + size].astype(np.float64))
    rtol, atol = (1e-4, 1e-5) if dtype == np.float32 else (1e-12, 1e-13)
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("bad", [-1.0, 0.5, 5.0, np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_no_category_gives_nan_and_no_gradient(dtype, bad):
    x, table, delta, passed, plan = case({1: 5}, 1, 3, 2, dtype, 0)
    x[1, 1] = bad
    a, gradient = np.empty_like(delta), np.empty_like(table)
    run_kernel(embed, dtype, (x, table, a, passed, plan))
    assert np.isnan(a[1, 2:]).all()
    assert np.isfinite(a[[0, 2]]).all()
    run_kernel(embedding_gradient, dtype, (x, delta, gradient, plan))
    expected = np.zeros_like(table)
    np.add.at(expected, x[[0, 2], 1].astype(int), delta[[0, 2], 2:])
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)
