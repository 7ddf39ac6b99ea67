"""Scalar functions for use inside Numba loops, branch-free and vectorising in float32, libm in float64.

Each function takes scalars of one type, np.float32 or float. Compiled code and plain Python run the same definition,
on the CPU and on CUDA. NaN gives NaN, infinities give the limits, overflow gives inf without a warning.

"float32 error" is the largest error relative to the exact value over all 2^32 float32 numbers whose result is a
normal float32 number; results below those go to 0 through the subnormal numbers.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import types
from numba.extending import overload, register_jitable

from gpubp.kernels import float32

inlined = register_jitable(forceinline=True)  # a call left in a loop keeps LLVM from vectorising it
_Function = TypeVar("_Function", bound=Callable[..., Any])


def _by_type(single: Callable[..., Any], double: Callable[..., Any]) -> Callable[[_Function], _Function]:
    """A decorator: compiled calls with float32 scalars go to `single`, all others to `double`."""

    def register(public: _Function) -> _Function:
        def choose(*args):
            return single if args[0] == types.float32 else double

        overload(public, jit_options={"forceinline": True}, strict=False)(choose)
        return public

    return register


@inlined
def clamp(z, bound):
    """min(max(z, -bound), bound); NaN stays, and so does the type of z."""
    low, high = type(z)(-bound), type(z)(bound)
    y = high if z > high else z
    return low if y < low else y


# ---- exp and its kin -------------------------------------------------------------------------------------


@inlined
def _exp64(z):
    return math.inf if z > 709.782712893384 else math.exp(z)  # math.exp raises on overflow in plain Python


@_by_type(float32.exp, _exp64)
def exp(z):
    """exp(z); float32 error 8.5e-8."""
    return float32.exp(z) if isinstance(z, np.float32) else _exp64(z)


@inlined
def _exp_times64(w, a, b):
    return w * _exp64(a + b)


@_by_type(float32.exp_times, _exp_times64)
def exp_times(w, a, b):
    """w exp(a + b), b a small correction of a: a normal product stays accurate though exp alone is subnormal."""
    return float32.exp_times(w, a, b) if isinstance(a, np.float32) else _exp_times64(w, a, b)


@inlined
def _expm1_64(z):
    return math.inf if z > 709.782712893384 else math.expm1(z)


@_by_type(float32.expm1, _expm1_64)
def expm1(z):
    """exp(z) - 1; float32 error 1.3e-7."""
    return float32.expm1(z) if isinstance(z, np.float32) else _expm1_64(z)


@inlined
def _log64(z):
    y = math.log(z) if z > 0.0 else math.nan  # math.log raises outside its domain in plain Python
    return -math.inf if z == 0.0 else y


@_by_type(float32.log, _log64)
def log(z):
    """log(z), -inf at 0, NaN below; float32 error 1.1e-7."""
    return float32.log(z) if isinstance(z, np.float32) else _log64(z)


@inlined
def _log1p64(z):
    y = math.log1p(z) if z > -1.0 else math.nan
    return -math.inf if z == -1.0 else y


@_by_type(float32.log1p, _log1p64)
def log1p(z):
    """log(1 + z), -inf at -1, NaN below; float32 error 1.6e-7."""
    return float32.log1p(z) if isinstance(z, np.float32) else _log1p64(z)


@inlined
def _softplus64(z):
    return (z if z > 0.0 else 0.0) + math.log1p(math.exp(-abs(z)))


@_by_type(float32.softplus, _softplus64)
def softplus(z):
    """log(1 + exp(z)) = max(z, 0) + log1p(exp(-|z|)); float32 error 1.8e-7."""
    return float32.softplus(z) if isinstance(z, np.float32) else _softplus64(z)


@inlined
def _tanh64(z):
    return math.tanh(z)


@_by_type(float32.tanh, _tanh64)
def tanh(z):
    """tanh(z), never outside [-1, 1]; float32 error 3.1e-7."""
    return float32.tanh(z) if isinstance(z, np.float32) else _tanh64(z)


@inlined
def _sigmoid64(z):
    return 1.0 / (1.0 + _exp64(-z))


@_by_type(float32.sigmoid, _sigmoid64)
def sigmoid(z):
    """1 / (1 + exp(-z)); float32 error 1.5e-7."""
    return float32.sigmoid(z) if isinstance(z, np.float32) else _sigmoid64(z)


# ---- the error function and what gelu needs of it --------------------------------------------------------


@inlined
def _erf64(z):
    return math.erf(z)


@_by_type(float32.erf, _erf64)
def erf(z):
    """2 / sqrt(pi) times the integral of exp(-t^2) over [0, z], never outside [-1, 1]; float32 error 4.4e-7."""
    return float32.erf(z) if isinstance(z, np.float32) else _erf64(z)


@inlined
def _erfc64(z):
    return math.erfc(z)


@_by_type(float32.erfc, _erfc64)
def erfc(z):
    """1 - erf(z), relatively accurate in its tail too; float32 error 4.3e-7."""
    return float32.erfc(z) if isinstance(z, np.float32) else _erfc64(z)


@inlined
def _gaussian_tail64(t, u, v):
    density = math.exp(-0.5 * (t * t)) / math.sqrt(2.0 * math.pi)
    return u * (0.5 * math.erfc(t * math.sqrt(0.5))) + v * density


@_by_type(float32.gaussian_tail, _gaussian_tail64)
def gaussian_tail(t, u, v):
    """u Q(t) + v phi(t) for t >= 0: Q(t) = erfc(t / sqrt 2) / 2 the upper tail of the normal law, phi its density.

    For finite u and v; a normal sum stays accurate though Q and phi themselves are subnormal.
    """
    return float32.gaussian_tail(t, u, v) if isinstance(t, np.float32) else _gaussian_tail64(t, u, v)


GELU_TANH_C1 = 2.0 * math.sqrt(2.0 / math.pi)
GELU_TANH_C3 = 0.044715 * GELU_TANH_C1


@inlined
def _gelu_tanh_exponent64(z):
    return z * (GELU_TANH_C1 + GELU_TANH_C3 * (z * z)), 0.0


@_by_type(float32.gelu_tanh_exponent, _gelu_tanh_exponent64)
def gelu_tanh_exponent(z):
    """2 sqrt(2/pi) (z + 0.044715 z^3) for |z| <= 25 as a sum (v, correction) of two numbers.

    exp turns the absolute error of its argument into a relative one; near -90 one float32 would carry 4e-6.
    """
    return float32.gelu_tanh_exponent(z) if isinstance(z, np.float32) else _gelu_tanh_exponent64(z)
