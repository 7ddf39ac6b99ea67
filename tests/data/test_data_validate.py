"""What the input checks accept, convert and refuse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpubp.data import validate
from gpubp.errors import InputError

FLOATS = (np.float32, np.float64)
NUMBERS = ("?", "i1", "u1", "i2", "u4", "i8", "u8", "f2", "f4", "f8", ">f4", ">i8", "g")


def layouts(x):
    """The same values in other memory: Fortran order, strided, reversed, read-only, unaligned."""
    wide = np.zeros((x.shape[0] * 2, x.shape[1] * 3), x.dtype)
    wide[::2, ::3] = x
    frozen = x.copy()
    frozen.setflags(write=False)
    raw = np.zeros(x.nbytes + 1, np.uint8)
    unaligned = raw[1:].view(x.dtype).reshape(x.shape)
    unaligned[...] = x
    return [x, np.asfortranarray(x), wide[::2, ::3], x[::-1].copy()[::-1], frozen, unaligned]


@given(
    data=st.data(),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 7)),
    source=st.sampled_from(NUMBERS),
    dtype=st.sampled_from(FLOATS),
)
def test_features_keep_values_in_any_dtype_and_layout(data, shape, source, dtype):
    whole = data.draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 1 if source == "?" else 100)))
    x = whole.astype(source)
    for given_x in layouts(x):
        before = given_x.copy()
        out = validate.features(given_x, shape[1], dtype)
        assert out.dtype == dtype
        assert out.shape == shape
        assert out.flags.c_contiguous
        assert out.flags.aligned
        np.testing.assert_array_equal(out, whole)
        np.testing.assert_array_equal(given_x, before)


@pytest.mark.parametrize("dtype", FLOATS)
def test_right_arrays_are_returned_without_a_copy(dtype):
    x = np.ones((3, 2), dtype)
    assert validate.features(x, 2, dtype) is x
    assert validate.targets(x, 2, 3, dtype) is x
    w = np.ones(3, dtype)
    assert validate.weights(w, 3, dtype) is w
    y = np.array([0, 1, 1])
    assert validate.labels(y, 2, 3) is y


def test_lists_are_taken():
    np.testing.assert_array_equal(validate.features([[1, 2], [3, 4]]), np.array([[1, 2], [3, 4]], np.float32))


@pytest.mark.parametrize(
    "x",
    [
        np.array([["1", "2"]]),
        np.array([[1, None]]),
        np.array([[1j, 2]]),
        np.array([["2020-01-01"]], "datetime64[D]"),
        np.zeros((2, 2), [("a", "f4")]),
        [[1, 2], [3]],
        [[2**70, 1]],
        object(),
        np.ma.masked_array([[1.0, 2.0]], mask=[[True, False]]),
    ],
)
def test_no_numbers(x):
    with pytest.raises(InputError, match=r"^x: expected .*, got .*; ") as caught:
        validate.features(x)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "word"),
    [
        ((), "one row per example"),
        ((3,), "x[None, :]"),
        ((2, 2, 2), "reshape"),
        ((0, 3), "empty batch"),
        ((3, 0), "at least one feature"),
        ((0,), "x[None, :]"),
    ],
)
def test_shapes_of_features(shape, word):
    with pytest.raises(InputError) as caught:
        validate.features(np.zeros(shape))
    assert word in str(caught.value)


def test_number_of_features():
    with pytest.raises(InputError, match=r"expected 3 features per row, got 2; "):
        validate.features(np.zeros((4, 2)), 3)


@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    data=st.data(),
    value=st.sampled_from([np.nan, np.inf, -np.inf]),
    dtype=st.sampled_from(FLOATS),
    source=st.sampled_from([np.float16, np.float32, np.float64]),
    order=st.sampled_from("CF"),
)
def test_the_first_bad_value_is_named(shape, data, value, dtype, source, order):
    x = np.zeros(shape, source, order=order)
    first = data.draw(st.integers(0, x.size - 1))
    last = data.draw(st.integers(first, x.size - 1))
    for flat in (first, last):
        x[divmod(flat, shape[1])] = value
    row, column = divmod(first, shape[1])
    with pytest.raises(InputError, match=rf"finite values, got -?(nan|inf) at row {row}, column {column};"):
        validate.features(x, dtype=dtype)
    with pytest.raises(InputError, match=rf"y: .* at row {row}, column {column};"):
        validate.targets(x, shape[1], shape[0], dtype)


def test_infinities_of_both_signs_do_not_cancel():
    with pytest.raises(InputError, match="inf at row 0, column 0"):
        validate.features(np.array([[np.inf, -np.inf]]))


def test_overflow_of_the_dtype_is_an_error_and_a_large_sum_is_not():
    with pytest.raises(InputError, match=r"within float32, got 1e\+300 at row 1, column 0; .*float64"):
        validate.features(np.array([[1.0], [1e300]]))
    with pytest.raises(InputError, match=r"within float32, got -1e\+39"):
        validate.targets(np.array([-1e39]), 1, 1, np.float32)
    x = np.full((4, 2), 1e300)
    assert validate.features(x, dtype=np.float64) is x
    np.testing.assert_array_equal(validate.features(np.full((9, 1), 3e38)), np.float32(3e38))


@given(
    n=st.integers(1, 9),
    k=st.integers(1, 5),
    data=st.data(),
    source=st.sampled_from(["i1", "u1", "i8", "u8", "f4", ">i4"]),
)
def test_labels_keep_their_values(n, k, data, source):
    wide = data.draw(hnp.arrays(np.int64, (2 * n,), elements=st.integers(0, k - 1))).astype(source)
    for y in (wide[::2], wide[:n], wide[:n, None], wide[:n][::-1]):
        out = validate.labels(y, k, n)
        assert out.dtype == np.int64
        assert out.shape == (n,)
        assert out.flags.c_contiguous
        np.testing.assert_array_equal(out, y.reshape(n))


def test_boolean_labels():
    np.testing.assert_array_equal(validate.labels([True, False], 2, 2), [1, 0])


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0, 1, 3], r"from 0 to 2, got 3 at row 2"),
        ([0, -1, 1], r"from 0 to 2, got -1 at row 1"),
        (np.array([0, 2**63, 1], np.uint64), r"from 0 to 2, got 9223372036854775808 at row 1"),
        ([0.0, 0.5, 1.0], r"integer class index, got 0.5 at row 1"),
        ([0.0, np.nan, 1.0], r"integer class index, got nan at row 1"),
        ([0, 1], r"expected shape \(3,\), got \(2,\)"),
        (np.zeros((3, 2), int), r"expected shape \(3,\), got \(3, 2\)"),
        (["a", "b", "c"], r"expected real numbers, got dtype <U1; pass class indices"),
        (0, r"expected shape \(3,\), got \(\)"),
    ],
)
def test_bad_labels(y, message):
    with pytest.raises(InputError, match=message):
        validate.labels(y, 3, 3)


def test_targets_of_one_output_may_be_flat():
    assert validate.targets([1, 2, 3], 1, 3).shape == (3, 1)
    with pytest.raises(InputError, match=r"expected shape \(3, 2\), got \(3,\)"):
        validate.targets([1, 2, 3], 2, 3)
    with pytest.raises(InputError, match=r"expected shape \(3, 1\), got \(3, 2\)"):
        validate.targets(np.ones((3, 2)), 1, 3)


@pytest.mark.parametrize(
    ("w", "message"),
    [
        ([1.0, -0.5, 2.0], r"at least 0, got -0.5 at row 1"),
        ([0.0, 0.0, 0.0], r"positive sum within float32, got 0;"),
        ([3e38, 3e38, 0.0], r"positive sum within float32, got 6e\+38"),
        ([1.0, np.nan, 1.0], r"finite values, got nan at row 1"),
        ([1.0, 1.0], r"expected shape \(3,\), got \(2,\)"),
        ([1e39, 1.0, 1.0], r"within float32, got 1e\+39 at row 0"),
    ],
)
def test_bad_weights(w, message):
    with pytest.raises(InputError, match=rf"^sample_weight: .*{message}"):
        validate.weights(w, 3)


def test_weights_are_converted():
    out = validate.weights(np.array([[True], [False]]), 2, np.float64)
    np.testing.assert_array_equal(out, [1.0, 0.0])
    assert out.dtype == np.float64


@pytest.mark.parametrize(
    ("source", "dtype"),
    [
        ("?", "f4"),
        ("u1", "f4"),
        ("i2", "f4"),
        ("f2", "f4"),
        ("f4", "f4"),
        ("i4", "f8"),
        ("f8", "f8"),
        ("g", "f8"),
    ],
)
def test_float_dtype(source, dtype):
    assert validate.float_dtype(np.zeros((1, 1), source)) == np.dtype(dtype)
