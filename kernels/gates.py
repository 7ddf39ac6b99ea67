"""The activations z times a rising curve (silu, gelu, gelu_tanh, mish) as scalar pairs (f, d_f).

Each falls and then rises, so the output does not determine z and there is no derivative from the output. Far below 0
the curve is subnormal where its product with z is still a normal number; the products are formed inside exp.

f and d_f of a pair take the same exponential, the same quotient and the same polynomials of the same numbers, written
in the same way, so that the compiler computes them once in a loop that wants both.
"""

from gpubp.kernels import mathematics as m
from gpubp.kernels.mathematics import clamp, inlined

_FAR = 800.0  # from here on exp(-|z|) is 0 in both types; a finite stand-in for infinities, as inf * 0 is NaN
_CUBIC_FAR = 25.0  # the same for the exponent of gelu_tanh
_GAUSSIAN_FAR = 40.0  # the same for exp(-z^2 / 2)


@inlined
def _size(z, far):
    """min(|z|, far); NaN stays. In this order: the compiler rewrites |clamp(z)|, but only where that is used once."""
    t = abs(z)
    return type(z)(far) if t > type(z)(far) else t


@inlined
def _gate(z, t, v, correction):
    """z sigmoid(+-(v + correction)) with the sign of z; t = |z|, v >= 0."""
    one = type(z)(1)
    r = one / (one + m.exp_times(one, -v, -correction))
    below = m.exp_times(-t * r, -v, -correction)
    return z * r if z > type(z)(0) else below


@inlined
def _d_gate(z, t_d_v, v, correction):
    """s + z v' s (1 - s), s = sigmoid(+-(v + correction)): s = r and 1 - s = e r above 0, the reverse below."""
    one = type(z)(1)
    e = m.exp_times(one, -v, -correction)
    r = one / (one + e)
    above = r * (one + t_d_v * ((e if z > type(z)(0) else -one) * r))
    below = m.exp_times(above, -v, -correction)
    return above if z > type(z)(0) else below


@inlined
def silu(z):
    """z sigmoid(z)  [Elfwing, Uchibe, Doya 2018; also called swish]."""
    return _gate(z, _size(z, _FAR), abs(z), type(z)(0))


@inlined
def d_silu(z):
    """s (1 + z (1 - s)), s = sigmoid(z)."""
    return _d_gate(z, _size(z, _FAR), abs(z), type(z)(0))


@inlined
def gelu_tanh(z):
    """z/2 (1 + tanh(v/2)) = z sigmoid(v), v = 2 sqrt(2/pi) (z + 0.044715 z^3)  [Hendrycks, Gimpel 2016]."""
    t = _size(z, _CUBIC_FAR)
    v, correction = m.gelu_tanh_exponent(t)
    return _gate(z, t, v, correction)


@inlined
def d_gelu_tanh(z):
    """s + z v' s (1 - s), s = sigmoid(v), v' = 2 sqrt(2/pi) (1 + 3 * 0.044715 z^2)."""
    t = _size(z, _CUBIC_FAR)
    v, correction = m.gelu_tanh_exponent(t)
    t_d_v = t * (type(z)(m.GELU_TANH_C1) + type(z)(3.0 * m.GELU_TANH_C3) * (t * t))
    return _d_gate(z, t_d_v, v, correction)


@inlined
def gelu(z):
    """z Phi(z), Phi the normal distribution function: 1 - Q(z) above 0, Q(-z) below  [Hendrycks, Gimpel 2016]."""
    t = _size(z, _GAUSSIAN_FAR)
    tail = m.gaussian_tail(t, t, type(z)(-0.0))
    return z - tail if z > type(z)(0) else -tail


@inlined
def d_gelu(z):
    """Phi(z) + z phi(z), phi the normal density."""
    t = _size(z, _GAUSSIAN_FAR)
    tail = m.gaussian_tail(t, type(z)(1), -t)
    return type(z)(1) - tail if z > type(z)(0) else tail


@inlined
def _mish_parts(z):
    """x, e, g, r: z held within [-800, 20], exp(x), (e + 2) / q and 1 / q for q = e (e + 2) + 2.

    From 20 on mish is z in both types, and e^4 stays in float32's range.
    """
    x = clamp(type(z)(20) if z > type(z)(20) else z, _FAR)
    e = m.exp_times(type(z)(1), x, type(z)(-0.0))
    r = type(z)(1) / (e * (e + type(z)(2)) + type(z)(2))
    return x, e, (e + type(z)(2)) * r, r


@inlined
def mish(z):
    """z tanh(log(1 + e)) = z e (e + 2) / q, e = exp(z), q = e (e + 2) + 2  [Misra 2019]."""
    x, _, g, _ = _mish_parts(z)
    y = m.exp_times(x * g, x, type(z)(-0.0))
    return z if z > type(z)(20) else y


@inlined
def d_mish(z):
    """e ((e + 2) / q + 4 z (1 + e) / q^2), e = exp(z)."""
    x, e, g, r = _mish_parts(z)
    return m.exp_times(g + type(z)(4) * x * (type(z)(1) + e) * (r * r), x, type(z)(-0.0))
