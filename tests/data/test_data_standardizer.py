"""Standardization against its definition, in every dtype, over the whole range of floats."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import gpubp.data._standardizer as module
from gpubp.data import Standardizer
from gpubp.errors import InputError

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 5))
FINITE = st.floats(allow_nan=False, allow_infinity=False)


def exact(column):
    """(mean, population variance) of finite floats in exact arithmetic."""
    values = [Fraction(float(v)) for v in column]
    mean = sum(values) / len(values)
    return mean, sum((v - mean) ** 2 for v in values) / len(values)


@given(x=hnp.arrays(np.float64, SHAPES, elements=FINITE))
def test_mean_and_scale_over_the_whole_range(x):
    s = Standardizer.fit(x)
    assert s.mean.shape == s.scale.shape == (x.shape[1],)
    assert np.isfinite(s.mean).all()
    assert np.isfinite(s.scale).all()
    assert (s.scale > 0).all()
    for j in range(x.shape[1]):
        mean, variance = exact(x[:, j])
        largest = Fraction(float(np.abs(x[:, j]).max()))
        tiny = Fraction(5e-324)
        assert abs(Fraction(float(s.mean[j])) - mean) <= largest * Fraction(1e-14) + 2 * tiny
        if variance == 0:
            assert s.scale[j] == 1
            assert s.mean[j] == x[0, j]
            continue
        # The error of the standard deviation is that of its inputs, relative to the largest of them.
        bound = largest * Fraction(1e-14) + 2 * tiny
        scale = Fraction(float(s.scale[j]))
        if scale == 1 and variance < bound**2:
            continue  # its spread is lost in rounding: as good as constant
        assert max(scale - bound, 0) ** 2 <= variance
        assert variance <= (scale + bound) ** 2


@given(
    x=hnp.arrays(
        st.sampled_from([np.float32, np.float64]),
        SHAPES,
        elements=st.floats(-1000, 1000, width=32),
    ),
    order=st.sampled_from("CF"),
)
def test_transform_and_back(x, order):
    x = np.array(x, order=order)
    x.setflags(write=False)
    s = Standardizer.fit(x)
    z = s.transform(x, np.float64)
    assert z is not x
    np.testing.assert_allclose(z, (x.astype(np.float64) - s.mean) / s.scale, rtol=1e-12, atol=0)
    np.testing.assert_allclose(s.inverse_transform(z), x, rtol=1e-12, atol=1e-10)
    assert s.transform(x).dtype == x.dtype
    assert s.inverse_transform(z, np.float32).dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8])
def test_training_part_gets_mean_0_and_deviation_1(dtype):
    x = (np.random.default_rng(0).normal(size=(500, 3)) * [1, 5, 20] + [100, 120, 128]).astype(dtype)
    z = Standardizer.fit(x).transform(x, np.float64)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(z.std(axis=0), 1, rtol=1e-12)


def test_float32_is_accumulated_in_float64():
    x = np.full((100_001, 1), 4097.25, np.float32)
    x[0] = 1
    s = Standardizer.fit(x)
    np.testing.assert_allclose(s.mean, x.astype(np.float64).mean(), rtol=1e-13)
    np.testing.assert_allclose(s.scale, x.astype(np.float64).std(), rtol=1e-10)


def test_constant_features_get_scale_1_though_their_mean_rounds():
    x = np.tile([0.1, 7.0, 0.0, 1e-310], (11, 1))
    s = Standardizer.fit(x)
    np.testing.assert_array_equal(s.scale, 1.0)
    np.testing.assert_array_equal(s.transform(x), 0.0)


def test_blocks_do_not_change_the_transform(monkeypatch):
    x = np.random.default_rng(0).normal(size=(50, 3))
    whole = Standardizer.fit(x)
    monkeypatch.setattr(module, "_BLOCK", 7)
    blocks = Standardizer.fit(x)
    np.testing.assert_allclose(blocks.mean, whole.mean, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(blocks.scale, whole.scale, rtol=1e-13)
    np.testing.assert_array_equal(whole.transform(x), (x - whole.mean) / whole.scale)


def test_arrays_and_back():
    s = Standardizer.fit(np.random.default_rng(0).normal(size=(20, 3)))
    arrays = s.arrays()
    assert {k: (v.dtype, v.shape) for k, v in arrays.items()} == {
        "mean": (np.float64, (3,)),
        "scale": (np.float64, (3,)),
    }
    again = Standardizer.from_arrays(arrays)
    np.testing.assert_array_equal(again.mean, s.mean)
    np.testing.assert_array_equal(again.scale, s.scale)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mean": [0.0]}, "got no scale"),
        ({"mean": [0.0], "scale": [1.0, 1.0]}, "one shape"),
        ({"mean": [[0.0]], "scale": [[1.0]]}, "one shape"),
        ({"mean": [0.0], "scale": [0.0]}, "positive scales"),
        ({"mean": [np.nan], "scale": [1.0]}, "finite means"),
    ],
)
def test_bad_arrays(arrays, message):
    with pytest.raises(InputError, match=message):
        Standardizer.from_arrays(arrays)


def test_bad_input():
    s = Standardizer.fit(np.array([[0.0, 1.0], [1.0, 5.0]]))
    with pytest.raises(InputError, match="expected 2 features per row, got 3"):
        s.transform(np.zeros((1, 3)))
    with pytest.raises(InputError, match="nan at row 0, column 1"):
        s.transform(np.array([[0.0, np.nan]]))
    with pytest.raises(
        InputError, match=r"fits float32, got 1e\+300 at row 1, column 0; .* \(mean 0.5, scale 0.5\)"
    ):
        s.transform(np.array([[0.0, 1.0], [1e300, 1.0]]), np.float32)
    with pytest.raises(InputError, match=r"expected shape \(n, 2\), got \(3,\)"):
        s.inverse_transform(np.zeros(3))
    for x in (np.zeros((0, 2)), np.array([["a"]]), [[1, 2], [3]], np.array([[np.inf]])):
        with pytest.raises(InputError):
            Standardizer.fit(x)


def test_inverse_passes_nan_on():
    s = Standardizer.fit(np.array([[0.0], [1.0]]))
    assert np.isnan(s.inverse_transform(np.array([[np.nan]]))).all()
