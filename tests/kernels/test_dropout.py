"""Philox against its authors' own numbers, the statistics of the masks, and dropout's two kernels against NumPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit
from reference import ACTIVATION, mask, mask_bits, philox, run_kernel

from gpubp.kernels.activations import ACTIVATIONS
from gpubp.kernels.dropout import bias_activation_dropout, dropout, scale_of, threshold_of
from gpubp.kernels.philox import low
from gpubp.kernels.philox import philox as scalar_philox
from gpubp.kernels.replay import COUNTERS, STEP

DTYPES = (np.float32, np.float64)
shapes = st.tuples(st.integers(0, 40), st.integers(1, 40)) | st.sampled_from(
    [(1, 1), (17, 7), (3, 64), (2, 1023), (2, 1024), (1, 1025), (1, 2051)]
)
seeds = st.sampled_from([0, 1, 2**31, 2**32, 2**62 - 1]) | st.integers(0, 2**62 - 1)
steps = st.sampled_from([0, 1, 2**32 - 1, 2**32, 2**40 + 3]) | st.integers(0, 1000)
RATES = (0.0, 1e-5, 0.2, 0.5, 0.99999)

# kat_vectors of Random123 1.09, philox4x32 with 10 rounds: counter, key, words
KNOWN = (
    ("00000000" * 4, "00000000" * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff" * 4, "ffffffff" * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a8885a308d313198a2e03707344", "a4093822299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
)


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_philox_gives_the_numbers_of_its_authors(counter, key, words):
    c, k = ([int(text[i : i + 8], 16) for i in range(0, len(text), 8)] for text in (counter, key))
    expected = [int(word, 16) for word in words.split()]
    assert philox(c, k).tolist() == expected  # the reference of the tests below
    numbers = [np.uint64(word) for word in (*c, *k)]
    assert [int(low(word)) for word in scalar_philox(*numbers)] == expected
    assert [int(low(word)) for word in njit(scalar_philox)(*numbers)] == expected


# ---- the kernels ---------------------------------------------------------------------------------------


def counters_at(step):
    counters = np.zeros(COUNTERS, np.int64)
    counters[STEP] = step
    return counters


def dropped(x, rate, *, seed=1, step=2, layer=3, top=0, size=1):
    out = np.full_like(x, 7)
    integers = (seed, layer, threshold_of(rate), top)
    run_kernel(dropout, x.dtype, (x, out, counters_at(step)), integers=integers, size=size)
    return out


@pytest.mark.parametrize("dtype", DTYPES)
@given(shape=shapes, seed=seeds, step=steps, layer=st.integers(0, 20), rate=st.sampled_from(RATES))
def test_dropout_is_the_product_with_its_mask(dtype, shape, seed, step, layer, rate):
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    expected = x * mask(*shape, rate, seed=seed, step=step, layer=layer).astype(dtype)
    for size in (1, 2, 3):
        found = dropped(x, rate, seed=seed, step=step, layer=layer, size=size)
        np.testing.assert_array_equal(found, expected)
    if rate == 0:
        np.testing.assert_array_equal(found, x)


@given(rows=st.integers(1, 40), top=st.integers(0, 40), n=st.integers(1, 20), size=st.integers(1, 2))
def test_rows_of_a_batch_are_dropped_as_in_the_batch(rows, top, n, size):
    expected = mask(rows + top, n, 0.5, seed=1, step=2, layer=3)[top:]
    x, a, g = np.ones((rows, n)), np.empty((rows, n)), ACTIVATIONS["identity"]
    np.testing.assert_array_equal(dropped(x, 0.5, top=top, size=size), expected)
    operands, integers = (x, np.zeros(n), a, counters_at(2)), (1, 3, threshold_of(0.5), top)
    run_kernel(bias_activation_dropout, np.float64, operands, (g.f, g.d_f), integers, size=size)
    np.testing.assert_array_equal(a, expected)
    np.testing.assert_array_equal(x, expected)  # its derivative


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["identity", "relu", "tanh", "gelu"])
@given(shape=shapes, seed=seeds, rate=st.sampled_from(RATES))
def test_bias_activation_and_dropout_in_one_pass(name, dtype, shape, seed, rate):
    rng, g = np.random.default_rng(0), ACTIVATIONS[name]
    z, b = rng.standard_normal(shape).astype(dtype), rng.standard_normal(shape[1]).astype(dtype)
    m, (f, d_f) = mask(*shape, rate, seed=seed, step=5, layer=2), ACTIVATION[name]
    t, a = (z + b).astype(np.float64), np.full_like(z, 7)
    operands = (z, b, a, counters_at(5))
    run_kernel(bias_activation_dropout, dtype, operands, (g.f, g.d_f), (seed, 2, threshold_of(rate), 0))
    bound = 1e-5 if dtype == np.float32 else 1e-13
    np.testing.assert_allclose(a, f(t) * m, rtol=bound, atol=bound * m.max(initial=1))
    np.testing.assert_allclose(z, d_f(t) * m, rtol=bound, atol=bound * m.max(initial=1))
    assert (a[m == 0] == 0).all()
    assert (z[m == 0] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_noticed_where_it_is_dropped_too(dtype, bad):
    x = np.full((4, 100), bad, dtype)
    m = mask(4, 100, 0.5, seed=1, step=2, layer=3)
    out = dropped(x, 0.5)
    assert np.isnan(out[m == 0]).all()
    assert not np.isfinite(out).any()


def test_a_cut_of_the_batch_has_the_masks_of_its_rows():
    """Row i has its mask whatever the number of rows: the short batch of an epoch is the beginning of a full one."""
    x = np.ones((40, 21))
    np.testing.assert_array_equal(dropped(x, 0.3)[:9], dropped(x[:9], 0.3))
    np.testing.assert_array_equal(dropped(x, 0.3)[:, :9], dropped(np.ascontiguousarray(x[:, :9]), 0.3))


def test_rates():
    assert [threshold_of(rate) for rate in (0.0, 0.25, 0.5, 1 - 1e-9)] == [0, 16384, 32768, 65535]
    for rate in (0.1, 0.2, 0.3, 0.75, 0.9):
        assert abs(threshold_of(rate) / 65536 - rate) <= 2.0**-17
        kept = 1 - threshold_of(rate) / 65536
        assert scale_of(threshold_of(rate)) == pytest.approx(1 / kept, rel=1e-15)


# ---- statistics: seeds are fixed, so that these pass or fail for good ------------------------------------


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5, 0.9])
def test_mean_and_variance(rate):
    n = 1 << 20
    kept = dropped(np.ones((1024, 1024)), rate) != 0
    share = 1 - threshold_of(rate) / 65536
    assert abs(kept.mean() - share) < 4 * np.sqrt(rate * (1 - rate) / n)
    for axis in (0, 1):  # no row and no column apart: their counts vary as binomials do
        counts = kept.sum(axis=axis)
        assert abs(counts.var() / (1024 * share * (1 - share)) - 1) < 4 * np.sqrt(2 / 1024)


def chi_square(first, second):
    """Pearson's statistic of independence of two masks, over the 2 x 2 table; 1 degree of freedom."""
    table = np.array([[np.sum((first == a) & (second == b)) for b in (0, 1)] for a in (0, 1)], float)
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    return ((table - expected) ** 2 / expected).sum()


def kept_at(**place):
    place = {"seed": 7, "step": 11, "layer": 1} | place
    return mask_bits(512, 512, **place) >= 16384


@pytest.mark.parametrize(
    "other",
    [
        {"step": 12},
        {"step": 13},
        {"step": 11 + 2**32},
        {"layer": 2},
        {"layer": 0},
        {"seed": 8},
        {"seed": 7 + 2**32},
    ],
    ids=repr,
)
def test_steps_layers_and_seeds_are_independent(other):
    assert chi_square(kept_at(), kept_at(**other)) < 15.1  # exceeded once in 10,000


@pytest.mark.parametrize(
    ("down", "across"), [(1, 0), (0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (3, 5), (16, 0)]
)
def test_rows_and_columns_are_independent(down, across):
    kept = kept_at()
    first, second = kept[: 512 - down, : 512 - across], kept[down:, across:]
    assert chi_square(first, second) < 15.1


def test_the_bits_are_uniform():
    counts = np.bincount((mask_bits(512, 512, seed=3, step=0, layer=0) >> 8).ravel(), minlength=256)
    expected = counts.sum() / 256
    assert ((counts - expected) ** 2 / expected).sum() < 347.7  # 255 degrees of freedom, once in 10,000
