"""The float64 forms behind mathematics.py: the twin of float32.py, with its rules, names and order.

Every constant is np.float64 or np.int64, every choice a select, powers of two are made from their bits; a loop over any
of these becomes packed instructions. No integer is converted to a number or back: adding 1.5 * 2^52 to one puts its
rounding into its own low bits, which needs no AVX-512 to be packed.

The coefficients, highest power first, are own minimax fits: Remez's exchange in 50 digits (for a rational the
equations of the alternation are solved for its error by Newton's iteration), then rounded to float64. "fitted to" is
the relative error of the fit before rounding. All coefficients of the tail's rational are positive, so that no
rounding is magnified.
"""

import math

import numpy as np
from numba.extending import register_jitable

inlined = register_jitable(forceinline=True)  # a call left in a loop keeps LLVM from vectorising it

_F = np.float64
_ZERO, _HALF, _ONE, _TWO, _INF, _NAN = _F(0), _F(0.5), _F(1), _F(2), _F(np.inf), _F(np.nan)
_NO_CORRECTION = _F(-0.0)  # x + -0.0 is x for every x, so the compiler drops the sum; x + 0.0 it has to keep
_I1, _MANTISSA, _BIAS = np.int64(1), np.int64(52), np.int64(1023)
_MAGNITUDE, _SIGN = np.int64(0x7FFFFFFFFFFFFFFF), np.int64(-(2**63))
_UPPER_HALF, _SQRT_HALF = np.int64(-(2**27)), np.int64(0x3FE6A09E667F3BCD)


def _row(*coefficients):
    return tuple(_F(c) for c in coefficients)


@inlined
def _polynomial(x, coefficients):
    y = coefficients[0]
    for i in range(1, len(coefficients)):
        y = y * x + coefficients[i]
    return y


@inlined
def _at_most(x, high):
    """min(x, high); NaN stays."""
    return high if x > high else x


@inlined
def _at_least(x, low):
    return low if x < low else x


@inlined
def _bits(x):
    return np.float64(x).view(np.int64)


@inlined
def _from_bits(k):
    return np.int64(k).view(np.float64)


@inlined
def _two_to(k):
    """2^k for an int64 k in [-1022, 1023]."""
    return _from_bits((k + _BIAS) << _MANTISSA)


@inlined
def _upper_half(x):
    """The leading 26 bits of x; the product of two such numbers is exact."""
    return _from_bits(_bits(x) & _UPPER_HALF)


@inlined
def _with_sign(x, z):
    """x >= 0 with the sign of z."""
    return _from_bits(_bits(x) | (_bits(z) & _SIGN))


# ---- exp, expm1: exp(z) = 2^k exp(r), k = round(z / ln 2), |r| <= ln 2 / 2 ------------------------------

# the leading 32 bits of ln 2, and the rest
_LOG2_E, _LN2_HI, _LN2_LO = _F(1.4426950408889634), _F(0.6931471803691238), _F(1.9082149292705877e-10)
# x + _ROUND holds round(x) + 2046, twice the exponent's bias, in its low bits
_ROUND = _F(1.5 * 2.0**52 + 2046.0)
_EXP_MAX, _EXP_MIN = _F(709.782712893384), _F(-800.0)
# exp(r) = 1 + r + r^2 P(r), |r| <= 0.3466; fitted to 1.8e-17 relative to exp(r) - 1
_EXP = _row(
    2.5053791576664014e-08, 2.7626089099425046e-07, 2.7557407628255878e-06, 2.4801505153413737e-05,
    0.0001984126971878612, 0.00138888889316566, 0.008333333333389693, 0.04166666666657651,
    0.16666666666666588, 0.5000000000000006,
)  # fmt: skip


@inlined
def _reduced(z):
    """(k + 2046 in the low bits of an int64, r) with z = k ln 2 + r."""
    shifted = z * _LOG2_E + _ROUND
    n = shifted - _ROUND
    return _bits(shifted), (z - n * _LN2_HI) - n * _LN2_LO


@inlined
def exp_times(w, a, b):
    """w exp(a + b) for a <= 709.78, |w| <= 2^60, a correction |b| < 0.06; the product alone may under- or overflow."""
    bits, r = _reduced(_at_least(a, _EXP_MIN))
    r = r + b
    half = bits >> _I1  # 2^k in two factors, since it may leave float64's range
    p = (_polynomial(r, _EXP) * r + _ONE) * r + _ONE
    return w * (p * _from_bits(half << _MANTISSA)) * _from_bits((bits - half) << _MANTISSA)


@inlined
def exp(z):
    e = exp_times(_ONE, _at_most(z, _EXP_MAX), _NO_CORRECTION)
    return _INF if z > _EXP_MAX else e


@inlined
def decay(z):
    return exp_times(_ONE, -abs(z), _NO_CORRECTION)


@inlined
def expm1(z):
    bits, r = _reduced(_at_least(_at_most(z, _EXP_MAX), _F(-45.0)))
    q = r + r * r * _polynomial(r, _EXP)
    # 2^k q + (2^k - 1), at half size because 2^1024 is no float64
    half = _from_bits((bits - _BIAS - _I1) << _MANTISSA)
    e = _TWO * (half * q + (half - _HALF))
    return _INF if z > _EXP_MAX else e


# ---- log, log1p: log(x) = k ln 2 + log(1 + f), x = 2^k (1 + f), 1 + f in [sqrt(1/2), sqrt(2)) ---------------

# log(1 + f) = 2 atanh(s) = 2 s + s t P(t), s = f / (2 + f), t = s^2; fitted to 1.3e-18
_LOG = _row(
    0.14797322226471446, 0.15313924661577816, 0.18183568784717086, 0.22222198496602508, 0.2857142874304293,
    0.39999999999412134, 0.6666666666666735,
)  # fmt: skip
_INTEGER, _INTEGER_BITS = _F(1.5 * 2.0**52), np.int64(0x4338000000000000)


@inlined
def _exponent(x):
    """The k of x = 2^k (1 + f) above, as int64, for a normal |x|."""
    return np.int64(((_bits(x) & _MAGNITUDE) - _SQRT_HALF) >> _MANTISSA)


@inlined
def _log_of_parts(k, f):
    n = _from_bits(k + _INTEGER_BITS) - _INTEGER
    s = f / (_TWO + f)
    t = s * s
    h = _HALF * f * f
    # 2 s = f - s f and s f = h - s h: f itself stays exact
    return n * _LN2_HI + (f - (h - (s * (h + t * _polynomial(t, _LOG)) + n * _LN2_LO)))


@inlined
def log(z):
    subnormal = abs(z) < _F(2.2250738585072014e-308)
    x = z * _F(2.0**54) if subnormal else z
    k = _exponent(x)
    f = _from_bits((_bits(x) & _MAGNITUDE) - (k << _MANTISSA)) - _ONE
    y = _log_of_parts(k, f) - (_F(37.42994775023705) if subnormal else _ZERO)
    y = z if z == _INF else y
    y = -_INF if z == _ZERO else y
    return y if z >= _ZERO else _NAN


@inlined
def log1p(z):
    x = _at_least(_at_most(z, _F(1.7976931348623157e308)), -_ONE)
    k = _exponent(_ONE + x)
    k1 = k >> _I1
    s1, s2 = _two_to(-k1), _two_to(k1 - k)
    # 1 + f = 2^-k (1 + z), without the rounding of 1 + z
    y = _log_of_parts(k, x * s1 * s2 + (s1 * s2 - _ONE))
    y = z if z == _INF else y
    y = -_INF if z == -_ONE else y
    return _NAN if z < -_ONE else y


# log(1 + e) = e + e^2 P(e) / Q(e) for e in [0, 1], fitted to 6.3e-18
_LOG1P_P = _row(
    -0.0015564133482264017, -0.042241157747011863, -0.31508618440887237, -0.9234929584131322,
    -1.1433588869715503, -0.49999999999999806,
)  # fmt: skip
_LOG1P_Q = _row(
    0.0015794320605916775, 0.04908993581572046, 0.4506056994918104, 1.7640860664711482, 3.3159088772447385,
    2.9533844406094, 1.0,
)  # fmt: skip


@inlined
def softplus(z):
    e = decay(z)
    return _at_least(z, _ZERO) + (e + e * e * (_polynomial(e, _LOG1P_P) / _polynomial(e, _LOG1P_Q)))


# ---- tanh, sigmoid ---------------------------------------------------------------------------------------


@inlined
def tanh(z):
    """tanh |z| = -q / (q + 2), q = exp(-2|z|) - 1 = 2^k (exp(r) - 1) + (2^k - 1)."""
    bits, r = _reduced(_F(-2.0) * _at_most(abs(z), _F(20.0)))
    scale = _from_bits((bits - _BIAS) << _MANTISSA)
    q = scale * (r + r * r * _polynomial(r, _EXP)) + (scale - _ONE)
    return _with_sign(abs(q / (q + _TWO)), z)


@inlined
def sigmoid(z):
    e = decay(z)
    return (_ONE if z > _ZERO else e) / (_ONE + e)


_MISH_FAR = _F(354.8913564466920)  # from here on 4 exp(-2z) is subnormal


@inlined
def _tanh_softplus_parts(z):
    """h, n and 1 / (n + 1/2) for h = exp(z) / 2 and n = h (h + 1), of z at most _MISH_FAR."""
    h = exp_times(_HALF, _at_most(z, _MISH_FAR), _NO_CORRECTION)
    n = h * (h + _ONE)
    return h, n, _ONE / (n + _HALF)


@inlined
def tanh_softplus(z):
    """(e^2 - 1) / (e^2 + 1), e = 1 + exp(z) = 1 + 2h: that is 4n / (4n + 2)."""
    _, n, r = _tanh_softplus_parts(z)
    return n * r


@inlined
def d_tanh_softplus(z):
    """4 e (e - 1) / (e^2 + 1)^2 = h (h + 1/2) / (n + 1/2)^2."""
    h, _, r = _tanh_softplus_parts(z)
    d = (h * (h + _HALF)) * r * r
    return _ZERO if z > _MISH_FAR else d


# ---- erf, erfc, the Gaussian tail ------------------------------------------------------------------------

# erf(x) = x P(x^2), |x| <= 0.5, fitted to 4.0e-18
_ERF = _row(
    1.4721571423784366e-06, -1.4845429280421875e-05, 0.0001205331844323925, -0.0008548297408788334,
    0.0052239773690723615, -0.02686617063264243, 0.11283791670924603, -0.37612638903183465, 1.1283791670955126,
)  # fmt: skip
# exp(t^2 / 2) Q(t) = P(t) / Q(t) for t in [0, 38.8], Q(t) = erfc(t / sqrt 2) / 2; fitted to 5.1e-17
_TAIL_P = _row(
    1.3836807653319958e-06, 3.720863699195233e-05, 0.0004899148323917647, 0.004085830406965322,
    0.02360599045713046, 0.09764544376453524, 0.28921228795102466, 0.5938774397556302, 0.7747571488235454, 0.5,
)  # fmt: skip
_TAIL_Q = _row(
    3.468373329454741e-06, 9.326822154234076e-05, 0.0012315027445656591, 0.01033492623368007,
    0.06039254118423623, 0.254815940003271, 0.7816980020773638, 1.7138361938421547, 2.5607081867150634,
    2.347398858449946, 1.0,
)  # fmt: skip


@inlined
def _scaled_tail(t):
    return _polynomial(t, _TAIL_P) / _polynomial(t, _TAIL_Q)


@inlined
def _erfc_above(t):
    """erfc(t) for t >= 0."""
    x = _at_most(t, _F(28.0))
    h = _upper_half(x)  # x^2 = h^2, which is exact, + (x - h)(x + h): rounding x^2 would cost 8e-14 at x = 27
    return exp_times(_TWO * _scaled_tail(_F(math.sqrt(2.0)) * x), -(h * h), -((x - h) * (x + h)))


@inlined
def erf(z):
    t = abs(z)
    x = _at_most(t, _F(6.0))
    y = x * _polynomial(x * x, _ERF) if x < _HALF else _ONE - _erfc_above(x)
    return _with_sign(y, z)


@inlined
def erfc(z):
    e = _erfc_above(abs(z))
    return _TWO - e if z < _ZERO else e


@inlined
def gaussian_tail(t, u, v):
    h = _upper_half(t)
    w = u * _scaled_tail(t) + v * _F(1.0 / math.sqrt(2.0 * math.pi))
    return exp_times(w, -(_HALF * (h * h)), -(_HALF * ((t - h) * (t + h))))


# 2 sqrt(2 / pi) and 0.044715 times that: their leading 26 bits and the rest
_C1_HI, _C3_HI = _F(1.5957691073417664), _F(0.071354815736413)
_C1_LO, _C3_LO = _F(1.426396435433791e-08), _F(5.361872467621785e-10)


@inlined
def gelu_tanh_exponent(z):
    zh = _upper_half(z)
    zl = z - zh
    s = z * z
    sh = _upper_half(s)
    sl = (zh * zh - sh) + zl * (z + zh)
    qh = _upper_half(_C1_HI + _C3_HI * s)
    ql = ((_C1_HI - qh) + _C3_HI * sh) + _C3_HI * sl + (_C1_LO + _C3_LO * s)
    return zh * qh, z * ql + zl * qh
