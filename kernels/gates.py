"""The activations z times a rising curve (silu, gelu, gelu_tanh, mish) as scalar pairs (f, d_f).

Each falls and then rises, so the output does not determine z and there is no derivative from the output. Far below 0
the curve is subnormal where its product with z is still a normal number; the products are formed inside exp.
"""

from gpubp.kernels import mathematics as m
from gpubp.kernels.mathematics import clamp, inlined

_FAR = 800.0  # from here on exp(-|z|) is 0 in both types; a finite stand-in for infinities, as inf * 0 is NaN
_CUBIC_FAR = 25.0  # the same for the exponent of gelu_tanh


@inlined
def _gate(z, v, correction):
    """z sigmoid(v + correction)."""
    a = -abs(v)
    b = correction if v < type(z)(0) else -correction
    above = z / (type(z)(1) + m.exp_times(type(z)(1), a, b))
    below = m.exp_times(clamp(above, _FAR), a, b)
    return above if v > type(z)(0) else below


@inlined
def _d_gate(v, correction, z_d_v):
    """s + z v' s (1 - s) for s = sigmoid(v + correction)."""
    one = type(v)(1)
    a = -abs(v)
    b = correction if v < type(v)(0) else -correction
    e = m.exp_times(one, a, b)
    q = (one + e) * (one + e)
    above = (one + e + z_d_v * e) / q
    below = m.exp_times((one + e + z_d_v) / q, a, b)
    return above if v > type(v)(0) else below


@inlined
def silu(z):
    """z sigmoid(z)  [Elfwing, Uchibe, Doya 2018; also called swish]."""
    return _gate(z, z, type(z)(0))


@inlined
def d_silu(z):
    """s (1 + z (1 - s)), s = sigmoid(z)."""
    x = clamp(z, _FAR)
    return _d_gate(x, type(z)(0), x)


@inlined
def gelu_tanh(z):
    """z/2 (1 + tanh(v/2)) = z sigmoid(v), v = 2 sqrt(2/pi) (z + 0.044715 z^3)  [Hendrycks, Gimpel 2016]."""
    v, correction = m.gelu_tanh_exponent(clamp(z, _CUBIC_FAR))
    return _gate(z, v, correction)


@inlined
def d_gelu_tanh(z):
    """s + z v' s (1 - s), s = sigmoid(v), v' = 2 sqrt(2/pi) (1 + 3 * 0.044715 z^2)."""
    x = clamp(z, _CUBIC_FAR)
    v, correction = m.gelu_tanh_exponent(x)
    z_d_v = x * (type(z)(m.GELU_TANH_C1) + type(z)(3.0 * m.GELU_TANH_C3) * (x * x))
    return _d_gate(v, correction, z_d_v)


@inlined
def gelu(z):
    """z Phi(z), Phi the normal distribution function: 1 - Q(z) above 0, Q(-z) below  [Hendrycks, Gimpel 2016]."""
    x = clamp(z, _FAR)
    tail = m.gaussian_tail(abs(x), x, type(z)(0))
    return z - tail if z > type(z)(0) else tail


@inlined
def d_gelu(z):
    """Phi(z) + z phi(z), phi the normal density."""
    t = abs(clamp(z, _FAR))
    tail = m.gaussian_tail(t, type(z)(1), -t)
    return type(z)(1) - tail if z > type(z)(0) else tail


@inlined
def _mish_argument(z):
    """z held within [-800, 20]: from 20 on mish is z in both types, and exp(z)^4 stays in float32's range."""
    x = type(z)(20) if z > type(z)(20) else z
    return clamp(x, _FAR)


@inlined
def mish(z):
    """z tanh(log(1 + e)) = z e (e + 2) / (e (e + 2) + 2), e = exp(z)  [Misra 2019]."""
    x = _mish_argument(z)
    e = m.exp(x)
    w = x * (e + type(z)(2)) / (e * (e + type(z)(2)) + type(z)(2))
    y = m.exp_times(w, x, type(z)(0))
    return z if z > type(z)(20) else y


@inlined
def d_mish(z):
    """e ((e + 2) q + 4 z (1 + e)) / q^2, e = exp(z), q = e (e + 2) + 2."""
    x = _mish_argument(z)
    e = m.exp(x)
    q = e * (e + type(z)(2)) + type(z)(2)
    w = ((e + type(z)(2)) * q + type(z)(4) * x * (type(z)(1) + e)) / (q * q)
    return m.exp_times(w, x, type(z)(0))
