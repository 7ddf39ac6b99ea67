"""Every activation against SciPy, central differences, PyTorch and itself: values, derivatives, limits."""

from __future__ import annotations

import functools
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

from gpubp.errors import ConfigError
from gpubp.kernels.activations import ACTIVATIONS, activation

NAMES = list(ACTIVATIONS)
WITHOUT_OUTPUT_FORM = {"gelu", "gelu_tanh", "silu", "mish", "hard_swish"}  # they also have f' = 0 somewhere
# where f', or its slope, jumps: a central difference is off there by more than its step squared
KINKS = {
    "softsign": [0],
    "relu": [0],
    "leaky_relu": [0],
    "elu": [0],
    "selu": [0],
    "hard_tanh": [-1, 1],
    "hard_swish": [-3, 3],
}
EDGES = [1e4, -1e4, 1000.0, -1000.0, 0.0, -0.0, np.inf, -np.inf, np.nan, 1e30, -1e30, 3e38, -3e38]
SMALLEST_NORMAL, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
SELU_L, SELU_A = 1.0507009873554805, 1.6732632423543772
sigmoid = special.expit

# References take float64 or np.longdouble and keep to it.


def cubic_coefficients(z):
    return np.sqrt(8 / extended.PI).astype(z.dtype), z.dtype.type("0.044715")


def cubic(z):
    c, k = cubic_coefficients(z)
    return c * (z + k * z**3)


def d_gelu_tanh(z):
    c, k = cubic_coefficients(z)
    s, d_cubic = sigmoid(cubic(z)), c * (1 + 3 * k * z**2)
    return s + z * d_cubic * s * sigmoid(-cubic(z))


def normal_below(z):
    return special.ndtr(z) if z.dtype == np.float64 else extended.normal_below(z)


def d_gelu(z):
    return normal_below(z) + z * np.exp(-z * z / 2) / np.sqrt(2 * extended.PI).astype(z.dtype)


def mish_parts(z):
    """e and n with tanh(log(1 + e)) = n / (n + 2), e = exp(z) as far as it matters."""
    e = np.exp(np.minimum(z, 40))
    return e, e * (e + 2)


def mish(z):
    _, n = mish_parts(z)
    return z * n / (n + 2)


def d_mish(z):
    """t + z (1 - t^2) s with t = n / (n + 2), 1 - t^2 = 4 (n + 1) / (n + 2)^2, s = e / (1 + e)."""
    e, n = mish_parts(z)
    return n / (n + 2) + np.minimum(z, 40) * 4 * (1 + e) * e / (n + 2) ** 2


def d_mish_tail(z):
    """The same without cancellation between terms that share the factor e."""
    e, n = mish_parts(z)
    return np.where(z > 0, d_mish(z), e * ((e + 2) / (n + 2) + z * 4 * (1 + e) / (n + 2) ** 2))


def sech2(z):
    e = np.exp(-2 * np.abs(z))
    return 4 * e / (1 + e) ** 2


def hard_swish(z):
    return z * np.clip(z + 3, 0, 6) / 6


def d_hard_swish(z):
    return np.where(z <= -3, 0.0, np.where(z >= 3, 1.0, z / 3 + 0.5))


def above(z, yes, no):
    return np.where(z > 0, yes, no)


REFERENCES = {
    "identity": (lambda z: z, np.ones_like),
    "relu": (lambda z: np.maximum(z, 0), lambda z: above(z, 1.0, 0.0)),
    "leaky_relu": (lambda z: above(z, z, 0.01 * z), lambda z: above(z, 1.0, 0.01)),
    "elu": (lambda z: above(z, z, np.expm1(z)), lambda z: above(z, 1.0, np.exp(z))),
    "selu": (
        lambda z: SELU_L * above(z, z, SELU_A * np.expm1(z)),
        lambda z: SELU_L * above(z, 1.0, SELU_A * np.exp(z)),
    ),
    "gelu": (lambda z: z * normal_below(z), d_gelu),
    "gelu_tanh": (lambda z: z * sigmoid(cubic(z)), d_gelu_tanh),
    "silu": (lambda z: z * sigmoid(z), lambda z: sigmoid(z) * (1 + z * sigmoid(-z))),
    "mish": (mish, d_mish_tail),
    "softplus": (lambda z: np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z))), sigmoid),
    "softsign": (lambda z: z / (1 + np.abs(z)), lambda z: (1 + np.abs(z)) ** -2.0),
    "sigmoid": (sigmoid, lambda z: sigmoid(z) * sigmoid(-z)),
    "tanh": (np.tanh, sech2),
    "hard_tanh": (lambda z: np.clip(z, -1, 1), lambda z: np.where(np.abs(z) < 1, 1.0, 0.0)),
    "hard_swish": (hard_swish, d_hard_swish),
    "exp": (np.exp, np.exp),
}


@functools.cache
def compiled(scalar):
    """An elementwise loop compiled as the kernels are."""

    @numba.njit(error_model="numpy", fastmath={"contract"})
    def run(z, out):
        for i in range(z.size):
            out[i] = scalar(z[i])

    def apply(z):
        out = np.empty_like(z)
        run(z, out)
        return out

    return apply


def points_float32():
    """All exponents of normal numbers up to 2^60, with 512 mantissas each, and the stretch where curves bend."""
    rng = np.random.default_rng(11)
    exponents = np.exp2(np.arange(-126, 60, dtype=np.float32))[:, None]
    spread = (exponents * rng.uniform(1, 2, 512).astype(np.float32)).ravel()
    bends = [rng.uniform(-b, b, 200_000).astype(np.float32) for b in (4.0, 14.0, 110.0)]
    return np.concatenate([spread, -spread, *bends])


def exact(name, which, z, dtype=np.float64):
    with np.errstate(all="ignore"):
        return REFERENCES[name][which](z.astype(dtype))


def test_the_table_names_its_rows():
    assert len(ACTIVATIONS) == 16
    assert all(name == row.name for name, row in ACTIVATIONS.items())
    assert {name for name, row in ACTIVATIONS.items() if row.d_f_of_output is None} == WITHOUT_OUTPUT_FORM
    assert set(REFERENCES) == set(ACTIVATIONS)


def test_an_unknown_name_gets_the_nearest_one():
    assert activation("relu") is ACTIVATIONS["relu"]
    with pytest.raises(ConfigError, match=r"got 'gelu_tan'; did you mean 'gelu_tanh'\?"):
        activation("gelu_tan")


@pytest.mark.parametrize("name", NAMES)
def test_f_in_float32_is_within_2e_6_relative(name):
    z = points_float32()
    out, ref = compiled(ACTIVATIONS[name].f)(z), exact(name, 0, z)
    normal = (np.abs(ref) >= SMALLEST_NORMAL) & (np.abs(ref) <= LARGEST)
    assert np.max(np.abs(out[normal] - ref[normal]) / np.abs(ref[normal])) <= 2e-6
    assert np.all(np.abs(out[np.abs(ref) < SMALLEST_NORMAL]) <= SMALLEST_NORMAL)
    assert np.all(np.isposinf(out[np.abs(ref) > LARGEST]))


@pytest.mark.parametrize("name", NAMES)
def test_d_f_in_float32_is_within_4e_6_relative_or_absolute_near_its_zero(name):
    z = points_float32()
    out, ref = compiled(ACTIVATIONS[name].d_f)(z), exact(name, 1, z)
    allowed = 4e-6 * np.abs(ref) + SMALLEST_NORMAL
    if name in WITHOUT_OUTPUT_FORM:
        allowed = np.maximum(allowed, np.where(np.abs(z) < 3, 1e-6, 0.0))
    finite = np.abs(ref) <= LARGEST
    assert np.all(np.abs(out[finite] - ref[finite]) <= allowed[finite])
    assert np.all(np.isposinf(out[~finite]))


@extended.needs_long_double
@pytest.mark.parametrize("name", NAMES)
def test_f_in_float64_is_within_4e_15_relative(name):
    z = extended.points()
    z = z[np.isfinite(z)]
    ref = exact(name, 0, z, np.longdouble)
    assert np.max(extended.errors(compiled(ACTIVATIONS[name].f)(z), ref)) <= 4e-15


@extended.needs_long_double
@pytest.mark.parametrize("name", NAMES)
def test_d_f_in_float64_is_within_4e_15_relative_or_absolute_near_its_zero(name):
    z = extended.points()
    z = z[np.isfinite(z)]
    out, ref = compiled(ACTIVATIONS[name].d_f)(z), exact(name, 1, z, np.longdouble)
    allowed = 4e-15 * np.abs(ref) + extended.SMALLEST_NORMAL
    if name in WITHOUT_OUTPUT_FORM:
        allowed = np.maximum(allowed, np.where(np.abs(z) < 3, 1e-15, 0.0))
    finite = np.abs(ref) <= extended.LARGEST
    assert np.all(np.abs(out[finite] - ref[finite]) <= allowed[finite])
    assert np.all(np.isposinf(out[~finite]))


@pytest.mark.parametrize("name", NAMES)
def test_float64_follows_the_formulas(name):
    z = np.r_[np.linspace(-36, 36, 8001), np.logspace(-30, 2.5, 200), -np.logspace(-30, 2.5, 200)]
    for which, scalar in enumerate((ACTIVATIONS[name].f, ACTIVATIONS[name].d_f)):
        np.testing.assert_allclose(compiled(scalar)(z), exact(name, which, z), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", NAMES)
@given(z=st.floats(-30, 30))
def test_d_f_is_the_slope_of_f(name, z):
    row, step = ACTIVATIONS[name], 1e-5
    if any(abs(z - kink) <= 2 * step for kink in KINKS.get(name, [])):
        z += 10 * step  # one-sided there; the values at the kinks have their own test
    slope = (row.f(z + step) - row.f(z - step)) / (2 * step)
    scale = max(1.0, abs(row.f(z)))
    assert abs(row.d_f(z) - slope) <= 1e-9 * scale


def test_values_at_the_kinks():
    d = {name: row.d_f for name, row in ACTIVATIONS.items()}
    assert (d["relu"](0.0), d["leaky_relu"](0.0)) == (0.0, 0.01)
    assert d["elu"](0.0) == 1.0
    assert d["selu"](0.0) == pytest.approx(SELU_L * SELU_A, rel=1e-15)
    assert (d["hard_tanh"](1.0), d["hard_tanh"](-1.0), d["hard_tanh"](0.999)) == (0.0, 0.0, 1.0)
    assert (d["hard_swish"](-3.0), d["hard_swish"](3.0)) == (0.0, 1.0)


@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_agree_with_pytorch(torch, name):
    F = torch.nn.functional
    own_names = {
        "identity": lambda z: z * 1,
        "gelu_tanh": lambda z: F.gelu(z, approximate="tanh"),
        "hard_tanh": F.hardtanh,
        "hard_swish": F.hardswish,
        "exp": torch.exp,
    }
    oracle = own_names.get(name) or getattr(F, name)
    points = np.r_[np.linspace(-20, 20, 2001), -3.0, -1.0, 0.0, 1.0, 3.0]
    z = torch.tensor(points, requires_grad=True)
    a = oracle(z)
    a.sum().backward()
    row = ACTIVATIONS[name]
    atol = 3e-9 if name == "softplus" else 1e-13  # from 20 on PyTorch's softplus is z itself
    np.testing.assert_allclose(compiled(row.f)(points), a.detach().numpy(), rtol=1e-12, atol=atol)
    np.testing.assert_allclose(compiled(row.d_f)(points), z.grad.numpy(), rtol=1e-12, atol=atol)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", sorted(set(NAMES) - WITHOUT_OUTPUT_FORM))
def test_the_derivative_from_the_output_equals_that_from_the_input(name, dtype):
    row = ACTIVATIONS[name]
    z = np.r_[np.linspace(-60, 60, 6001), np.linspace(-1e4, 80, 1001)].astype(dtype)
    d_z = compiled(row.d_f)(z)
    d_a = compiled(row.d_f_of_output)(compiled(row.f)(z))
    epsilon = np.finfo(dtype).eps
    np.testing.assert_allclose(d_a, d_z, rtol=16 * epsilon, atol=8 * epsilon)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NAMES)
def test_plain_python_gives_the_compiled_result_without_a_warning(name, dtype):
    row = ACTIVATIONS[name]
    z = np.r_[np.linspace(-110, 110, 401), np.linspace(-3, 3, 201), EDGES].astype(dtype)
    a = compiled(row.f)(z)
    for scalar, points in ((row.f, z), (row.d_f, z), (row.d_f_of_output, a)):
        if scalar is None:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            plain = [scalar(dtype(v)) for v in points]
        if dtype is np.float32:
            assert {type(v) for v in plain} == {np.float32}
        # equal but for multiply-adds, which compiled code rounds once (test_mathematics compares bits without them)
        epsilon = np.finfo(dtype).eps
        crosses_zero = scalar is row.d_f_of_output or (scalar is row.d_f and name in WITHOUT_OUTPUT_FORM)
        atol = 4 * epsilon if crosses_zero else 4 * np.finfo(dtype).tiny
        rtol = 20 * epsilon if dtype is np.float32 else 1e-12
        np.testing.assert_allclose(np.array(plain, dtype), compiled(scalar)(points), rtol=rtol, atol=atol)


LIMITS = {  # f(-inf), f(inf), f'(-inf), f'(inf)
    "identity": (-np.inf, np.inf, 1, 1),
    "relu": (0, np.inf, 0, 1),
    "leaky_relu": (-np.inf, np.inf, 0.01, 1),
    "elu": (-1, np.inf, 0, 1),
    "selu": (-SELU_L * SELU_A, np.inf, 0, SELU_L),
    "gelu": (0, np.inf, 0, 1),
    "gelu_tanh": (0, np.inf, 0, 1),
    "silu": (0, np.inf, 0, 1),
    "mish": (0, np.inf, 0, 1),
    "softplus": (0, np.inf, 0, 1),
    "softsign": (-1, 1, 0, 0),
    "sigmoid": (0, 1, 0, 0),
    "tanh": (-1, 1, 0, 0),
    "hard_tanh": (-1, 1, 0, 0),
    "hard_swish": (0, np.inf, 0, 1),
    "exp": (0, np.inf, 0, np.inf),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NAMES)
def test_limits_and_nan(name, dtype):
    row = ACTIVATIONS[name]
    z = np.array([-np.inf, np.inf, np.nan], dtype)
    a, d = compiled(row.f)(z), compiled(row.d_f)(z)
    np.testing.assert_allclose(
        np.r_[a[:2], d[:2]], np.array(LIMITS[name], dtype), rtol=2 * np.finfo(dtype).eps
    )
    assert np.isnan(a[2])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NAMES)
def test_far_inputs_stay_at_their_limits(name, dtype):
    row = ACTIVATIONS[name]
    z = np.array([-1e4, -1000.0, 1000.0, 1e4], dtype)
    a, d = compiled(row.f)(z), compiled(row.d_f)(z)
    np.testing.assert_allclose(a, exact(name, 0, z), rtol=1e-6, atol=1e-37)
    np.testing.assert_allclose(d, exact(name, 1, z), rtol=1e-6, atol=1e-37)
    assert name == "exp" or np.all(np.isfinite(np.r_[a, d]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "silu", "mish"])
def test_a_loop_over_f_and_d_f_computes_what_they_share_once(name, dtype):
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("the check reads x86 assembly")
    f, d_f = ACTIVATIONS[name].f, ACTIVATIONS[name].d_f

    @numba.njit(error_model="numpy", fastmath={"contract"})
    def alone(z, a):
        for i in range(z.size):
            a[i] = f(z[i])

    @numba.njit(error_model="numpy", fastmath={"contract"})
    def joint(z, a, d):
        for i in range(z.size):
            t = z[i]
            a[i], d[i] = f(t), d_f(t)

    z = np.zeros(8, dtype)
    counts = []
    for run, outputs in ((alone, 1), (joint, 2)):
        run(z, *[np.empty_like(z) for _ in range(outputs)])
        assembly = run.inspect_asm(run.signatures[0])
        kinds = r"\bv?div[sp][sd]\b", r"\bv?(?:mul|fn?m\w+)[sp][sd]\b"
        counts.append([len(re.findall(kind, assembly)) for kind in kinds])
    (divisions, products), (divisions_of_both, products_of_both) = counts
    assert 0 < divisions_of_both <= divisions
    assert products_of_both <= 1.6 * products
