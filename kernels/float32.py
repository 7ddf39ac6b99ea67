"""The float32 forms behind mathematics.py: polynomial and rational fits without a branch or a libm call.

Every constant is np.float32 or np.int32 (a bare literal would promote to float64), every choice a select, powers of
two are made from their bits; so LLVM turns a loop over any of these into packed instructions.

The coefficients, highest power first, are own minimax fits: least squares on 3000 Chebyshev nodes in float64,
reweighted until the relative error levels out (Lawson's iteration; for a rational with its last denominator as
weight), then rounded to float32. "fitted to" is the relative error of the fit before rounding.
"""

import math

import numpy as np
from numba.extending import register_jitable

inlined = register_jitable(forceinline=True)  # a call left in a loop keeps LLVM from vectorising it

_F = np.float32
_ZERO, _HALF, _ONE, _TWO, _INF, _NAN = _F(0), _F(0.5), _F(1), _F(2), _F(np.inf), _F(np.nan)
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
def _clamp(x, low, high):
    """x held within [low, high]; NaN stays."""
    y = high if x > high else x
    return low if y < low else y


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


# ---- exp, expm1: exp(z) = 2^n exp(r), n = round(z / ln 2), |r| <= ln 2 / 2 ------------------------------

_LOG2_E, _LN2_HI, _LN2_LO = _F(1.4426950408889634), _F(0.693359375), _F(-2.12194440054690583e-4)
_ROUND, _ROUND_BITS = _F(12582912.0), np.int32(0x4B400000)  # adding 1.5 * 2^23 puts round(x) in the low bits
_EXP_MAX, _EXP_MIN = _F(88.72283), _F(-150.0)
# exp(r) = 1 + r + r^2 P(r), |r| <= 0.3466; fitted to 1.4e-8 relative to exp(r) - 1
_EXP = _row(
    0.0013882521785895628, 0.008366518999277355, 0.041667199808696403, 0.16666543632692293, 0.4999999815431069
)  # fmt: skip


@inlined
def exp_times(w, a, b):
    """w exp(a + b) for |w| <= 2^60 and a correction |b| < 1 of a; the product alone may under- or overflow."""
    z = _clamp(a, _EXP_MIN, _EXP_MAX)
    shifted = (z + b) * _LOG2_E + _ROUND
    n = shifted - _ROUND
    r = ((z - n * _LN2_HI) - n * _LN2_LO) + b
    k = np.int32(_bits(shifted) - _ROUND_BITS)
    k1 = np.int32(k >> _I1)  # 2^k in two factors, since it may leave float32's range
    p = _ONE + (r + r * r * _polynomial(r, _EXP))
    return w * p * _two_to(k1) * _two_to(np.int32(k - k1))


@inlined
def exp(z):
    e = exp_times(_ONE, z, _ZERO)
    return _INF if z > _EXP_MAX else e


@inlined
def expm1(z):
    x = _clamp(z, _F(-20.0), _EXP_MAX)
    shifted = x * _LOG2_E + _ROUND
    n = shifted - _ROUND
    r = (x - n * _LN2_HI) - n * _LN2_LO
    q = r + r * r * _polynomial(r, _EXP)
    # 2^n q + (2^n - 1), at half size because 2^128 is no float32
    half = _two_to(np.int32(_bits(shifted) - _ROUND_BITS - _I1))
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
    e = exp_times(_ONE, -abs(z), _ZERO)
    return (z if z > _ZERO else _ZERO) + (e + e * e * _polynomial(e, _LOG1P_UNIT))


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
    return _ONE / (_ONE + exp(-z))


# ---- erf, erfc, the Gaussian tail ------------------------------------------------------------------------

# erf(x) = x P(x^2) / Q(x^2), |x| <= 3.93, fitted to 5.4e-8; beyond it erf rounds to +-1
_ERF_P = _row(
    1.9815436176759754e-08, -1.9553834983586194e-06, 0.00014249352646679702, 0.0037367539884448505,
    0.05068909158316359, 0.20080536575108762, 1.1283791072312699,
)  # fmt: skip
_ERF_Q = _row(0.0009639009831837295, 0.014426843915846414, 0.11536143329472859, 0.5112907296773845, 1.0)
# exp(t^2) erfc(t) = P(t) / Q(t) for t in [0, 10.2], fitted to 5.9e-9
_ERFCX_P = _row(
    0.032884328490962185, 0.22963702824990592, 0.7324814256405412, 1.2392478771239783, 1.0000000058485856
)  # fmt: skip
_ERFCX_Q = _row(
    0.05828527000290752, 0.40704703274769516, 1.3270062702707257, 2.4040536254734124, 2.3676276331794854, 1.0
)  # fmt: skip


@inlined
def erf(z):
    x = _clamp(z, _F(-3.93), _F(3.93))
    t = x * x
    return _clamp(x * _polynomial(t, _ERF_P) / _polynomial(t, _ERF_Q), -_ONE, _ONE)


@inlined
def _erfcx(t):
    return _polynomial(t, _ERFCX_P) / _polynomial(t, _ERFCX_Q)


@inlined
def erfc(z):
    t = _clamp(abs(z), _ZERO, _F(15.0))
    h = _upper_half(t)  # t^2 = h^2, which is exact, + (t - h)(t + h): rounding t^2 would cost 5e-6 at t = 9
    e = exp_times(_erfcx(t), -(h * h), -((t - h) * (t + h)))
    return _TWO - e if z < _ZERO else e


@inlined
def gaussian_tail(t, u, v):
    x = _clamp(t, _ZERO, _F(20.0))
    h = _upper_half(x)
    w = u * (_HALF * _erfcx(_F(math.sqrt(0.5)) * x)) + v * _F(1.0 / math.sqrt(2.0 * math.pi))
    return exp_times(w, -(_HALF * (h * h)), -(_HALF * ((x - h) * (x + h))))


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
    ql = ((_C1_HI - qh) + _C3_HI * sh) + (_C1_LO + (_C3_LO * s + _C3_HI * sl))
    return zh * qh, zh * ql + zl * (qh + ql)
