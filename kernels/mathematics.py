"""Scalar functions for use inside Numba loops: branch-free, without a call, packed by the compiler.

Each function takes scalars of one type, np.float32 or float. Compiled code and plain Python run the same definition,
on the CPU and on CUDA. NaN gives NaN, infinities give the limits, overflow gives inf without a warning.

"Error" is the largest relative to the exact value wherever that is a normal number: in float32 over all 2^32 numbers,
in float64 over 400,000 of every size and sign. Results below go to 0 through the subnormal numbers.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import types
from numba.core.target_extension import current_target
from numba.extending import overload, register_jitable

from gpubp.kernels import float32, float64

inlined = register_jitable(forceinline=True)  # a call left in a loop keeps LLVM from vectorising it
_Function = TypeVar("_Function", bound=Callable[..., Any])


def _by_type(
    single: Callable[..., Any], double: Callable[..., Any], double_on_cuda: Callable[..., Any] | None = None
) -> Callable[[_Function], _Function]:
    """A decorator: compiled calls whose first scalar is a float32 go to `single`, all others to `double`.

    In kernels for CUDA those others go to `double_on_cuda` where there is one.
    """

    def register(public: _Function) -> _Function:
        def choose(*args):
            if args[0] == types.float32:
                return single
            return double_on_cuda if double_on_cuda and current_target() == "cuda" else double

        overload(public, jit_options={"forceinline": True}, strict=False)(choose)
        return public

    return register


@inlined
def clamp(z, bound):
    """min(max(z, -bound), bound); NaN stays, and so does the type of z."""
    low, high = type(z)(-bound), type(z)(bound)
    y = high if z > high else z
    return low if y < low else y


@inlined
def sign(z):
    """1, 0 or -1, in the type of z; 0 for NaN."""
    return type(z)(z > 0) - type(z)(z < 0)


@inlined
def where(a, b, p, q):
    """p where a > b, else q.

    A function of its own makes one select: choices within one function become jumps, from one into the next.
    """
    return p if a > b else q


@inlined
def where_or_nan(a, b, p, q):
    """p where a > b or one of them is NaN, else q."""
    return q if a <= b else p


def _or_zero_below(smallest):
    @inlined
    def kept(z):
        return where(type(z)(smallest), abs(z), type(z)(0), z)

    return kept


@_by_type(_or_zero_below(float(np.finfo(np.float32).tiny)), _or_zero_below(float(np.finfo(np.float64).tiny)))
def normal_or_zero(z):
    """z, but 0 where z is subnormal; NaN stays."""
    return type(z)(0) if abs(z) < np.finfo(type(z)).tiny else z


# ---- exp and its kin -------------------------------------------------------------------------------------


@inlined
def _exp_of_toolkit(z):
    """Within one rounding; float64's own, once for each number that a thread of a softmax holds, spills on sm_80."""
    return math.exp(z)


@_by_type(float32.exp, float64.exp, double_on_cuda=_exp_of_toolkit)
def exp(z):
    """exp(z); errors 7.7e-8 in float32, 1.9e-16 in float64."""
    return float32.exp(z) if isinstance(z, np.float32) else float64.exp(z)


@_by_type(float32.exp_times, float64.exp_times)
def exp_times(w, a, b):
    """w exp(a + b): a normal product stays accurate though exp alone is subnormal.

    For |w| <= 2^60, a at most where exp overflows (88.72, 709.78) and a small correction |b| < 0.06 of a; -0.0, none,
    costs nothing.
    """
    return float32.exp_times(w, a, b) if isinstance(w, np.float32) else float64.exp_times(w, a, b)


@_by_type(float32.decay, float64.decay)
def decay(z):
    """exp(-|z|), without what exp does against overflow; errors as exp."""
    return float32.decay(z) if isinstance(z, np.float32) else float64.decay(z)


@_by_type(float32.expm1, float64.expm1)
def expm1(z):
    """exp(z) - 1; errors 1.3e-7 in float32, 2.9e-16 in float64."""
    return float32.expm1(z) if isinstance(z, np.float32) else float64.expm1(z)


@_by_type(float32.log, float64.log)
def log(z):
    """log(z), -inf at 0, NaN below; errors 1.1e-7 in float32, 1.5e-16 in float64."""
    return float32.log(z) if isinstance(z, np.float32) else float64.log(z)


@_by_type(float32.log1p, float64.log1p)
def log1p(z):
    """log(1 + z), -inf at -1, NaN below; errors 1.6e-7 in float32, 1.8e-16 in float64."""
    return float32.log1p(z) if isinstance(z, np.float32) else float64.log1p(z)


@_by_type(float32.softplus, float64.softplus)
def softplus(z):
    """log(1 + exp(z)) = max(z, 0) + log1p(exp(-|z|)); errors 1.8e-7 in float32, 3.2e-16 in float64."""
    return float32.softplus(z) if isinstance(z, np.float32) else float64.softplus(z)


@_by_type(float32.tanh, float64.tanh)
def tanh(z):
    """tanh(z), never outside [-1, 1]; errors 3.1e-7 in float32, 3.6e-16 in float64."""
    return float32.tanh(z) if isinstance(z, np.float32) else float64.tanh(z)


@_by_type(float32.sigmoid, float64.sigmoid)
def sigmoid(z):
    """1 / (1 + exp(-z)), from exp(-|z|); errors 1.8e-7 in float32, 3.2e-16 in float64."""
    return float32.sigmoid(z) if isinstance(z, np.float32) else float64.sigmoid(z)


@_by_type(float32.tanh_softplus, float64.tanh_softplus)
def tanh_softplus(z):
    """tanh(log(1 + exp(z))), the gate of mish, never above 1; errors 3.0e-7 in float32, 4.9e-16 in float64."""
    return float32.tanh_softplus(z) if isinstance(z, np.float32) else float64.tanh_softplus(z)


@_by_type(float32.d_tanh_softplus, float64.d_tanh_softplus)
def d_tanh_softplus(z):
    """Its derivative (1 - tanh^2(softplus(z))) sigmoid(z); errors 4.8e-7 in float32, 8.2e-16 in float64."""
    return float32.d_tanh_softplus(z) if isinstance(z, np.float32) else float64.d_tanh_softplus(z)


# ---- of the C library, or of the toolkit on CUDA ----------------------------------------------------------


@inlined
def _sqrt(z):
    return math.sqrt(z)


@inlined
def _sin(z):
    return math.sin(z)


@inlined
def _cos(z):
    return math.cos(z)


@_by_type(_sqrt, _sqrt)
def sqrt(z):
    """The square root, NaN below 0; one instruction, rounded correctly."""
    with np.errstate(invalid="ignore"):
        return type(z)(np.sqrt(z))


@_by_type(_sin, _sin)
def sin(z):
    """sin(z), NaN at infinities, for every size of z: a call, which a loop is not packed around."""
    with np.errstate(invalid="ignore"):
        return type(z)(np.sin(z))


@_by_type(_cos, _cos)
def cos(z):
    """cos(z), as sin."""
    with np.errstate(invalid="ignore"):
        return type(z)(np.cos(z))


# ---- the error function and what gelu needs of it --------------------------------------------------------


@_by_type(float32.erf, float64.erf)
def erf(z):
    """2 / sqrt(pi) times the integral of exp(-t^2) over [0, z], never outside [-1, 1].

    Errors 4.4e-7 in float32, 5.6e-16 in float64.
    """
    return float32.erf(z) if isinstance(z, np.float32) else float64.erf(z)


@_by_type(float32.erfc, float64.erfc)
def erfc(z):
    """1 - erf(z), relatively accurate in its tail too; errors 4.9e-7 in float32, 1.3e-15 in float64."""
    return float32.erfc(z) if isinstance(z, np.float32) else float64.erfc(z)


@_by_type(float32.gaussian_tail, float64.gaussian_tail)
def gaussian_tail(t, u, v):
    """u Q(t) + v phi(t): Q(t) = erfc(t / sqrt 2) / 2 the upper tail of the normal law, phi its density.

    For 0 <= t <= 40, finite u and v; -0.0 for v costs nothing. A normal sum stays accurate though Q and phi are
    subnormal.
    """
    return float32.gaussian_tail(t, u, v) if isinstance(t, np.float32) else float64.gaussian_tail(t, u, v)


GELU_TANH_C1 = 2.0 * math.sqrt(2.0 / math.pi)
GELU_TANH_C3 = 0.044715 * GELU_TANH_C1


@_by_type(float32.gelu_tanh_exponent, float64.gelu_tanh_exponent)
def gelu_tanh_exponent(z):
    """2 sqrt(2/pi) (z + 0.044715 z^3) for |z| <= 25 as a sum (v, correction) of two numbers.

    exp turns the absolute error of its argument into a relative one; near -90 one float32 would carry 4e-6, near -700
    one float64 1e-13.
    """
    return float32.gelu_tanh_exponent(z) if isinstance(z, np.float32) else float64.gelu_tanh_exponent(z)
