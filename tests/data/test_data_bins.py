"""Piecewise linear encoding against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubp.data import Bins
from gpubp.errors import InputError


def written(bins, x, dtype=np.float64):
    out = np.full((len(x), bins.width), np.nan, dtype)
    bins.transform(x, out)
    return out


def test_the_definition():
    bins = Bins(np.array([1]), np.array([3]), np.array([0.0, 1.0, 3.0]))
    x = np.array([[9, -1], [9, 0.25], [9, 1], [9, 2], [9, 3], [9, 70]], float)
    np.testing.assert_array_equal(written(bins, x), [[0, 0], [0.25, 0], [1, 0], [1, 0.5], [1, 1], [1, 1]])


@given(st.integers(1, 9), st.integers(1, 40), st.sampled_from([np.float32, np.float64]))
def test_intervals_hold_equally_many_rows_and_sums_rise_with_x(count, n, dtype):
    x = np.random.default_rng(n).normal(size=(n, 2)).astype(dtype)
    bins = Bins.fit(x, np.array([1]), count)
    z = written(bins, x, dtype)
    assert ((z >= 0) & (z <= 1)).all()
    if bins.width:
        order = np.argsort(x[:, 1], kind="stable")
        assert (np.diff(z.astype(np.float64).sum(axis=1)[order]) >= -1e-6).all()
        held = np.histogram(x[:, 1], bins.edges)[0]
        assert held.max() - held.min() <= 2
        assert (z[order[0]] == 0).all()
        np.testing.assert_allclose(z[order[-1]], 1, rtol=1e-6)


def test_columns_of_one_or_two_values_get_none():
    x = np.array([[0, 5, 1], [1, 5, 2], [0, 5, 3], [1, 5, 4]], float)
    bins = Bins.fit(x, np.arange(3), 2)
    np.testing.assert_array_equal(bins.columns, [2])
    assert Bins.fit(x, np.arange(2), 2).width == 0
    assert written(Bins.fit(x, np.arange(2), 2), x).shape == (4, 0)


def test_bins_come_back_from_what_is_stored():
    x = np.random.default_rng(0).normal(size=(50, 3))
    bins = Bins.fit(x, np.array([0, 2]), 5)
    arrays = bins.arrays()
    back = Bins.from_arrays(arrays, 3)
    np.testing.assert_array_equal(written(back, x), written(bins, x))
    empty = Bins.fit(x, np.array([], int), 5)
    assert Bins.from_arrays(empty.arrays(), 3).width == 0
    for name, value in (
        ("edges", arrays["edges"][::-1].copy()),
        ("edges", arrays["edges"][:-1]),
        ("edges", arrays["edges"] * np.nan),
        ("counts", arrays["counts"] + 1),
        ("counts", arrays["counts"].astype(float)),
        ("columns", arrays["columns"] + 2),
    ):
        with pytest.raises(InputError, match="bins: expected"):
            Bins.from_arrays({**arrays, name: value}, 3)
