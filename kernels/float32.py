"""The float32 forms behind mathematics.py: polynomial and rational fits without a branch or a libm call.

Every constant is np.float32 or np.int32 (a bare literal would promote to float64), every choice a select, powers of
two are made from their bits; so LLVM turns a loop over any of these into packed instructions.

The coefficients, highest power first, are own minimax fits: least squares on 3000 Chebyshev nodes in float64,
reweighted until the relative error levels out (Lawson's iteration; for a rational with its last denominator as
weight); those of the Gaussian tail by Remez's exchange as in float64.py; then rounded to float32. "fitted to" is the
relative error of the fit before rounding.
"""

import math

import numpy as np
from numba.extending import register_jitable

inlined = register_jitable(forceinline=True)  # a call left in a loop keeps LLVM from vectorising it

_F = np.float32
_ZERO, _HALF, _ONE, _TWO, _INF, _NAN = _F(0), _F(0.5), _F(1), _F(2), _F(np.inf), _F(np.nan)
_NO_CORRECTION = _F(-0.0)  # x + -0.0 is x for every x, so the compiler drops the sum; x + 0.0 it has to keep
_I1, _MANTISSA, _BIAS = np.int32(1), np.int32(23), np.int32(127)
_MAGNITUDE, _UPPER_HALF, _SQRT_HALF = np.int32(0x7FFFFFFF), np.int32(-4096), np.int32(0x3F3504F3)


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
def _clamp(x, low, high):
    return _at_least(_at_most(x, high), low)


@inlined
def _bits(x):
    return np.float32(x).view(np.int32)


@inlined
def _from_bits(k):
    return np.int32(k).view(np.float32)


@inlined
def _two_to(k):
    """2^k for an int32 k in [-126, 127]."""
    return _from_bits((k + _BIAS) << _MANTISSA)


@inlined
def _upper_half(x):
    """The leading 12 bits of x; the product of two such numbers is exact."""
    return _from_bits(_bits(x) & _UPPER_HALF)


# ---- exp, expm1: exp(z) = 2^k exp(r), k = round(z / ln 2), |r| <= ln 2 / 2 ------------------------------

_LOG2_E, _LN2_HI, _LN2_LO = _F(1.4426950408889634), _F(0.693359375), _F(-2.12194440054690583e-4)
# x + _ROUND holds round(x) + 254, twice the exponent's bias, in its low bits
_ROUND = _F(12582912.0 + 254.0)
_EXP_MAX, _EXP_MIN = _F(88.72283), _F(-150.0)
# exp(r) = 1 + r + r^2 P(r), |r| <= 0.3466; fitted to 1.4e-8 relative to exp(r) - 1
_EXP = _row(
    0.0013882521785895628, 0.008366518999277355, 0.041667199808696403, 0.16666543632692293, 0.4999999815431069
)  # fmt: skip


@inlined
def _reduced(z):
    """(k + 254 in the low bits of an int32, r) with z = k ln 2 + r."""
    shifted = z * _LOG2_E + _ROUND
    n = shifted - _ROUND
    return _bits(shifted), (z - n * _LN2_HI) - n * _LN2_LO


@inlined
def exp_times(w, a, b):
    """w exp(a + b) for a <= 88.72, |w| <= 2^60, a correction |b| < 0.06; the product alone may under- or overflow."""
    bits, r = _reduced(_at_least(a, _EXP_MIN))
    r = r + b
    half = np.int32(bits >> _I1)  # 2^k in two factors, since it may leave float32's range
    p = (_polynomial(r, _EXP) * r + _ONE) * r + _ONE
    return w * (p * _from_bits(half << _MANTISSA)) * _from_bits(np.int32(bits - half) << _MANTISSA)


@inlined
def exp(z):
    e = exp_times(_ONE, _at_most(z, _EXP_MAX), _NO_CORRECTION)
    return _INF if z > _EXP_MAX else e


@inlined
def decay(z):
    return exp_times(_ONE, -abs(z), _NO_CORRECTION)


@inlined
def expm1(z):
    bits, r = _reduced(_clamp(z, _F(-20.0), _EXP_MAX))
    q = r + r * r * _polynomial(r, _EXP)
    # 2^k q + (2^k - 1), at half size because 2^128 is no float32
    half = _from_bits(np.int32(bits - _BIAS - _I1) << _MANTISSA)
    e = _TWO * (half * q + (half - _HALF))
    return _INF if z > _EXP_MAX else e


# ---- log, log1p: log(x) = k ln 2 + log(1 + f), x = 2^k (1 + f), 1 + f in [sqrt(1/2), sqrt(2)) ---------------

# log(1 + f) = f + f^2 P(f), fitted to 3.0e-8
_LOG = _row(
    0.08734842774937669, -0.1430752166288773, 0.149179736659713, -0.16570508178318824, 0.199620721295862,
    -0.2500175525384499, 0.33333950221779074, -0.499999916063936,
)  # fmt: skip


@inlined
def _exponent(x):
    """The k of x = 2^k (1 + f) above, as int32, for a normal |x|."""
    return np.int32(np.int32((_bits(x) & _MAGNITUDE) - _SQRT_HALF) >> _MANTISSA)


@inlined
def _log_of_parts(k, f):
    n = _F(k)
    return n * _LN2_HI + (f + (f * f * _polynomial(f, _LOG) + n * _LN2_LO))


@inlined
def log(z):
    subnormal = abs(z) < _F(1.17549435e-38)
    x = z * _F(16777216.0) if subnormal else z  # by 2^24
    k = _exponent(x)
    f = _from_bits((_bits(x) & _MAGNITUDE) - np.int32(k << _MANTISSA)) - _ONE
    y = _log_of_parts(k, f) - (_F(16.635532333438686) if subnormal else _ZERO)
    y = z if z == _INF else y
    y = -_INF if z == _ZERO else y
    return y if z >= _ZERO else _NAN


@inlined
def log1p(z):
    k = _exponent(_ONE + z)
    k1 = np.int32(k >> _I1)
    s1, s2 = _two_to(np.int32(-k1)), _two_to(np.int32(k1 - k))
    # 1 + f = 2^-k (1 + z), without the rounding of 1 + z
    y = _log_of_parts(k, z * s1 * s2 + (s1 * s2 - _ONE))
    y = -_INF if z == -_ONE else y
    return _NAN if z < -_ONE else y


# log(1 + e) = e + e^2 P(e) for e in [0, 1], fitted to 3.4e-8
_LOG1P_UNIT = _row(
    0.005364824331481513, -0.03006579230119641, 0.07920453559084552, -0.13753802343698396, 0.1915365494150266,
    -0.24857163668079882, 0.3332132261807164, -0.4999964796347801,
)  # fmt: skip


@inlined
def softplus(z):
    e = decay(z)
    return _at_least(z, _ZERO) + (e + e * e * _polynomial(e, _LOG1P_UNIT))


# ---- tanh, sigmoid ---------------------------------------------------------------------------------------

# tanh(x) = x P(x^2) / Q(x^2), |x| <= 9.01, fitted to 2.1e-8; beyond it tanh rounds to +-1
_TANH_P = _row(
    1.3319084273050358e-08, 2.0583490340180507e-05, 0.003494035107093587, 0.13379718395587875, 0.9999999790117738
)  # fmt: skip
_TANH_Q = _row(7.762024560855538e-07, 0.00032830937400711964, 0.025871075267102975, 0.46713033635084245, 1.0)


@inlined
def tanh(z):
    x = _clamp(z, _F(-9.01), _F(9.01))
    t = x * x
    return _clamp(x * _polynomial(t, _TANH_P) / _polynomial(t, _TANH_Q), -_ONE, _ONE)


@inlined
def sigmoid(z):
    e = decay(z)
    return (_ONE if z > _ZERO else e) / (_ONE + e)


_MISH_FAR = _F(44.36142)  # from here on 4 exp(-2z) is subnormal


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

# erf(x) = x P(x^2) / Q(x^2), |x| <= 3.93, fitted to 5.4e-8; beyond it erf rounds to +-1
_ERF_P = _row(
    1.9815436176759754e-08, -1.9553834983586194e-06, 0.00014249352646679702, 0.0037367539884448505,
    0.05068909158316359, 0.20080536575108762, 1.1283791072312699,
)  # fmt: skip
_ERF_Q = _row(0.0009639009831837295, 0.014426843915846414, 0.11536143329472859, 0.5112907296773845, 1.0)
# exp(t^2 / 2) Q(t) = P(t) / Q(t) for t in [0, 14.4], Q(t) = erfc(t / sqrt 2) / 2; fitted to 5.9e-9
_TAIL_P = _row(
    0.004112411179666091, 0.04060695498419567, 0.18315719327481092, 0.4381897380230266, 0.500000002927845
)  # fmt: skip
_TAIL_Q = _row(
    0.010308165514573583, 0.10179302450191567, 0.4692648692967051, 1.2021793829000647, 1.674264454336746, 1.0
)  # fmt: skip


@inlined
def erf(z):
    x = _clamp(z, _F(-3.93), _F(3.93))
    t = x * x
    return _clamp(x * _polynomial(t, _ERF_P) / _polynomial(t, _ERF_Q), -_ONE, _ONE)


@inlined
def _scaled_tail(t):
    return _polynomial(t, _TAIL_P) / _polynomial(t, _TAIL_Q)


@inlined
def erfc(z):
    t = _at_most(abs(z), _F(12.0))
    h = _upper_half(t)  # t^2 = h^2, which is exact, + (t - h)(t + h): rounding t^2 would cost 5e-6 at t = 9
    e = exp_times(_TWO * _scaled_tail(_F(math.sqrt(2.0)) * t), -(h * h), -((t - h) * (t + h)))
    return _TWO - e if z < _ZERO else e


@inlined
def gaussian_tail(t, u, v):
    h = _upper_half(t)
    w = u * _scaled_tail(t) + v * _F(1.0 / math.sqrt(2.0 * math.pi))
    return exp_times(w, -(_HALF * (h * h)), -(_HALF * ((t - h) * (t + h))))


_C1 = 2.0 * math.sqrt(2.0 / math.pi)
_C3 = 0.044715 * _C1
_C1_HI, _C3_HI = _F(1.595703125), _F(0.07135009765625)  # their leading 12 bits
_C1_LO, _C3_LO = _F(_C1 - 1.595703125), _F(_C3 - 0.07135009765625)


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
