"""The scalar functions against SciPy and extended precision: over the whole range, at the edges, compiled and plain."""

from __future__ import annotations

import functools
import math
import platform
import re
import warnings

import extended
import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from gpubp.kernels import mathematics

SMALLEST_NORMAL, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


def mish_parts(z):
    """e and n with tanh(log(1 + e)) = n / (n + 2), e = exp(z) as far as it matters."""
    e = np.exp(np.minimum(z, 350 if z.dtype == np.float64 else 5000))
    return e, e * (e + 2)


def tanh_softplus(z):
    _, n = mish_parts(z)
    return n / (n + 2)


def d_tanh_softplus(z):
    e, n = mish_parts(z)
    return 4 * e / (n + 2) * ((1 + e) / (n + 2))


REFERENCES = {
    "exp": np.exp,
    "decay": lambda z: np.exp(-np.abs(z)),
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "softplus": lambda z: np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z))),
    "tanh": np.tanh,
    "sigmoid": special.expit,
    "tanh_softplus": tanh_softplus,
    "d_tanh_softplus": d_tanh_softplus,
    "erf": special.erf,
    "erfc": special.erfc,
}
NAMES = sorted(REFERENCES)
EXTENDED = REFERENCES | {"sigmoid": extended.sigmoid, "erf": extended.erf, "erfc": extended.erfc}


@functools.cache
def loop(scalar, contract=True):
    """An elementwise loop compiled as the kernels are."""

    @numba.njit(error_model="numpy", fastmath={"contract"} if contract else False)
    def run(z, out):
        for i in range(z.size):
            out[i] = scalar(z[i])

    return run


def apply(run, z):
    out = np.empty_like(z)
    run(z, out)
    return out


def dense_float32():
    """Every sign and exponent (NaN, inf and subnormals too) with 2048 mantissas, and where the curves bend."""
    rng = np.random.default_rng(7)
    mantissas = np.r_[0, 1, 2**23 - 1, rng.integers(0, 2**23, 2045)].astype(np.uint32)
    high_bits = np.arange(512, dtype=np.uint32)[:, None] << np.uint32(23)
    every_exponent = (high_bits | mantissas).ravel().view(np.float32)
    bends = [rng.uniform(-b, b, 500_000).astype(np.float32) for b in (1.5, 10.5, 110.0)]
    return np.concatenate([every_exponent, *bends])


def assert_close_float32(out, exact, limit):
    """Relative error at most `limit` where `exact` is normal in float32; its limit elsewhere; NaN for NaN."""
    size = np.abs(exact)
    normal = (size >= SMALLEST_NORMAL) & (size <= LARGEST)
    assert np.max(np.abs(out[normal] - exact[normal]) / size[normal]) <= limit
    assert np.array_equal(np.isnan(out), np.isnan(exact))
    over = size > LARGEST * (1 + 2.0**-25)
    assert np.array_equal(out[over], np.sign(exact[over]).astype(np.float32) * np.float32(np.inf))
    assert np.all(np.abs(out[size < SMALLEST_NORMAL]) <= SMALLEST_NORMAL)


@pytest.mark.parametrize("name", NAMES)
def test_float32_error_is_at_most_2e_6_over_the_whole_range(name):
    z = dense_float32()
    with np.errstate(all="ignore"):
        exact = REFERENCES[name](z.astype(np.float64))
    assert_close_float32(apply(loop(getattr(mathematics, name)), z), exact, limit=2e-6)


@extended.needs_long_double
@pytest.mark.parametrize("contract", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_float64_error_is_at_most_2e_15_over_the_whole_range(name, contract):
    z = extended.points()
    with np.errstate(all="ignore"):
        exact = EXTENDED[name](z.astype(np.longdouble))
        worst = np.max(extended.errors(apply(loop(getattr(mathematics, name), contract), z), exact))
    assert worst <= 2e-15


@pytest.mark.parametrize("name", NAMES)
def test_float64_agrees_with_scipy(name):
    z = np.r_[np.linspace(-40.0, 40.0, 4001), np.logspace(-300, 300, 601), -np.logspace(-300, 300, 601)]
    z = np.r_[z, np.nan, np.inf, -np.inf, 0.0, -1.0]
    with np.errstate(all="ignore"):
        exact = REFERENCES[name](z)
    out = apply(loop(getattr(mathematics, name)), z)
    np.testing.assert_allclose(out, exact, rtol=2e-13, atol=1e-300)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [np.float32, np.float64, float])
def test_plain_call_gives_the_compiled_bits_without_a_warning(name, kind):
    function, dtype = getattr(mathematics, name), np.dtype(kind)
    rng = np.random.default_rng(3)
    reach = 110 if kind is np.float32 else 760
    z = np.r_[rng.uniform(-reach, reach, 300), rng.uniform(-2, 2, 300), 10.0 ** rng.uniform(-37, 37, 100)]
    z = np.r_[z, -z, 0.0, -1.0, -2.0, 1e4, -1e4, np.finfo(dtype).max, np.finfo(dtype).tiny / 8]
    z = np.r_[z, np.finfo(dtype).min, np.nan, np.inf, -np.inf].astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = [function(kind(v)) for v in z]
    assert {type(v) for v in plain} <= ({np.float32} if kind is np.float32 else {float, np.float64})
    compiled = apply(loop(function, contract=False), z)  # a multiply-add would round once
    np.testing.assert_array_equal(np.array(plain), compiled)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NAMES)
def test_loop_is_packed_without_a_call_and_stays_in_its_type(name, dtype):
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("the check reads x86 assembly")
    run = loop(getattr(mathematics, name))
    z = np.zeros(8, dtype)
    apply(run, z)
    assembly = run.inspect_asm((numba.typeof(z), numba.typeof(z)))
    letter = "s" if dtype is np.float32 else "d"
    assert re.search(rf"\bv?(mul|fmadd\d+)p{letter}\b.*%[xyz]mm", assembly)
    assert not re.search(r"\bv?cvts[sd]2s[sd]\b|\bv?cvtp[sd]2p[sd]\b", assembly)
    if dtype is np.float32:
        assert not re.search(r"\bv?\w+[sp]d\s.*xmm\d+, %xmm\d+, %xmm", assembly)
    assert not re.search(r"\$(exp|expm1|log|log1p|tanh|erf|erfc)f?\b", assembly)


@given(st.floats(-700, 700), st.sampled_from(["tanh", "erf"]))
def test_odd_functions_are_odd_and_stay_within_one(z, name):
    function = getattr(mathematics, name)
    for value in (np.float32(z), z):
        assert function(-value) == -function(value)
        assert abs(function(value)) <= 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_limits(dtype):
    inf = dtype(np.inf)
    m = mathematics
    assert (m.exp(inf), m.exp(-inf), m.expm1(inf), m.expm1(-inf)) == (np.inf, 0, np.inf, -1)
    assert (m.log(dtype(0)), m.log(inf), m.log1p(dtype(-1)), m.log1p(inf)) == (
        -np.inf,
        np.inf,
        -np.inf,
        np.inf,
    )
    assert (m.tanh(inf), m.tanh(-inf), m.sigmoid(inf), m.sigmoid(-inf)) == (1, -1, 1, 0)
    assert (m.erf(inf), m.erf(-inf), m.erfc(inf), m.erfc(-inf)) == (1, -1, 0, 2)
    assert (m.softplus(inf), m.softplus(-inf)) == (np.inf, 0)
    assert (m.tanh_softplus(inf), m.tanh_softplus(-inf)) == (1, 0)
    assert (m.d_tanh_softplus(inf), m.d_tanh_softplus(-inf)) == (0, 0)
    assert math.isnan(m.log(dtype(-1)))
    assert math.isnan(m.log1p(dtype(-2)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normal_or_zero_drops_what_is_subnormal_and_nothing_else(dtype):
    tiny = np.finfo(dtype).tiny
    kept = np.array([0, 1, -1, tiny, -tiny, np.finfo(dtype).max, np.inf, -np.inf, np.nan], dtype)
    dropped = np.array([np.nextafter(tiny, dtype(0)), -tiny / 2, np.finfo(dtype).smallest_subnormal], dtype)
    z, expected = np.r_[kept, dropped], np.r_[kept, np.zeros(3, dtype)]
    np.testing.assert_array_equal(apply(loop(mathematics.normal_or_zero), z), expected)
    np.testing.assert_array_equal([mathematics.normal_or_zero(dtype(v)) for v in z], expected)


@extended.needs_long_double
def test_exp_times_in_float64_keeps_a_normal_product_and_takes_a_correction():
    a = np.linspace(-712, -700, 2001)
    for w, b in ((100.0, -0.0), (700.0, 1e-14), (1.0, 0.05)):
        out = np.array([mathematics.exp_times(w, v, b) for v in a])
        exact = np.longdouble(w) * np.exp(a.astype(np.longdouble) + np.longdouble(b))
        assert np.max(extended.errors(out, exact)) <= 1e-15


@extended.needs_long_double
def test_gaussian_tail_in_float64():
    t = np.linspace(0, 39, 5001)
    exact = t.astype(np.longdouble)
    tail = np.array([mathematics.gaussian_tail(v, 1.0, -0.0) for v in t])
    assert np.max(extended.errors(tail, extended.normal_below(-exact))) <= 2e-15
    density = np.array([mathematics.gaussian_tail(v, 0.0, 1.0) for v in t])
    assert np.max(extended.errors(density, extended.density(exact))) <= 1e-15


@extended.needs_long_double
def test_gelu_tanh_exponent_in_float64_carries_more_digits_than_one_float64():
    z = np.linspace(-21, 21, 2001)
    parts = np.array([mathematics.gelu_tanh_exponent(v) for v in z], np.longdouble)
    x = z.astype(np.longdouble)
    exact = np.sqrt(8 / extended.PI) * (x + np.longdouble("0.044715") * x**3)
    assert np.max(np.abs(parts.sum(axis=1) - exact)) < 3e-16  # the last bit of 700 is 1.1e-13
    assert np.max(np.abs(parts[:, 1])) < 0.06


def test_exp_times_keeps_a_normal_product_of_a_subnormal_exponential():
    a = np.linspace(-92, -80, 2001, dtype=np.float32)
    w = np.float32(100)
    out = np.array([mathematics.exp_times(w, v, np.float32(0)) for v in a])
    assert_close_float32(out, 100 * np.exp(a.astype(np.float64)), limit=2e-6)


def test_gaussian_tail_is_upper_tail_and_density():
    t = np.linspace(0, 13, 5001, dtype=np.float32)
    one, zero = np.float32(1), np.float32(0)
    exact = t.astype(np.float64)
    tail = np.array([mathematics.gaussian_tail(v, one, zero) for v in t])
    assert_close_float32(tail, special.ndtr(-exact), limit=2e-6)
    density = np.array([mathematics.gaussian_tail(v, zero, one) for v in t])
    assert_close_float32(density, np.exp(-exact * exact / 2) / np.sqrt(2 * np.pi), limit=2e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gelu_tanh_exponent_carries_more_digits_than_one_float32(dtype):
    z = np.linspace(-11, 11, 2001).astype(dtype)
    parts = np.array([mathematics.gelu_tanh_exponent(v) for v in z], dtype=np.float64)
    exact = np.sqrt(8 / np.pi) * (z.astype(np.float64) + 0.044715 * z.astype(np.float64) ** 3)
    assert np.max(np.abs(parts.sum(axis=1) - exact)) < 5e-8
