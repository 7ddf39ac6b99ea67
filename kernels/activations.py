"""Every activation as a scalar pair: f and, right beside it, its derivative d_f.

`f(z)` and `d_f(z)` take the pre-activation z. `d_f_of_output(a)` is the same derivative from a = f(z) alone, where a
determines it, so that a backward pass need not keep z. All are functions of one np.float32 or float scalar that Numba
inlines into a loop and plain Python can call; constants take the type of z.

At a kink PyTorch's choice is taken: d_relu(0) = 0, d_leaky_relu(0) = 0.01, d_hard_tanh(+-1) = 0, d_hard_swish = 0 at
-3 and 1 at 3. f lets NaN through; a piecewise constant d_f does not.

Errors where the exact value is a normal number: f within 2e-6 relative in float32, 4e-15 in float64 (measured: at most
4.3e-7 and 1.1e-15, for gelu). d_f likewise (measured: 3e-7 and 5e-16), but absolute where it crosses zero: d_silu,
d_gelu, d_gelu_tanh, d_mish (2.6e-7 and 5e-16) and d_hard_swish (8e-8 and 2e-16); and absolute for d_f_of_output, which
sees a already rounded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpubp.errors import plain_function, unknown_name
from gpubp.kernels import mathematics as m
from gpubp.kernels.gates import d_gelu, d_gelu_tanh, d_mish, d_silu, gelu, gelu_tanh, mish, silu
from gpubp.kernels.mathematics import clamp, inlined

# ---- piecewise linear ------------------------------------------------------------------------------------


@inlined
def identity(z):
    """z."""
    return z


@inlined
def d_identity(z):
    return type(z)(1)


@inlined
def relu(z):
    """max(z, 0)  [Nair, Hinton 2010]."""
    return type(z)(0) if z <= type(z)(0) else z


@inlined
def d_relu(z):
    return type(z)(1) if z > type(z)(0) else type(z)(0)


@inlined
def leaky_relu(z):
    """z above 0, z/100 below  [Maas, Hannun, Ng 2013]."""
    return z if z > type(z)(0) else type(z)(0.01) * z


@inlined
def d_leaky_relu(z):
    return type(z)(1) if z > type(z)(0) else type(z)(0.01)


@inlined
def hard_tanh(z):
    """min(max(z, -1), 1)  [Collobert 2004]."""
    return clamp(z, 1.0)


@inlined
def d_hard_tanh(z):
    return type(z)(1) if abs(z) < type(z)(1) else type(z)(0)


@inlined
def hard_swish(z):
    """z (z + 3) / 6 between -3 and 3, 0 below, z above  [Howard et al. 2019]."""
    x = clamp(z, 3.0)
    y = x * (x + type(z)(3)) * type(z)(1 / 6)
    return z if z > type(z)(3) else y


@inlined
def d_hard_swish(z):
    """z/3 + 1/2 between -3 and 3, 0 below, 1 above."""
    y = z * type(z)(1 / 3) + type(z)(0.5)
    y = type(z)(0) if z <= type(z)(-3) else y
    return type(z)(1) if z >= type(z)(3) else y


# ---- exponential below 0, or everywhere ------------------------------------------------------------------


@inlined
def elu(z):
    """z above 0, exp(z) - 1 below  [Clevert, Unterthiner, Hochreiter 2016]."""
    e = m.expm1(z)
    return z if z > type(z)(0) else e


@inlined
def d_elu(z):
    e = m.exp(z)
    return type(z)(1) if z > type(z)(0) else e


@inlined
def d_elu_of_output(a):
    return type(a)(1) if a > type(a)(0) else a + type(a)(1)


_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


@inlined
def selu(z):
    """1.0507 z above 0, 1.0507 * 1.6733 (exp(z) - 1) below  [Klambauer et al. 2017]."""
    x = type(z)(0) if z > type(z)(0) else z  # scaled, exp of a large z would overflow
    e = type(z)(_SELU_SCALE * _SELU_ALPHA) * m.expm1(x)
    return type(z)(_SELU_SCALE) * z if z > type(z)(0) else e


@inlined
def d_selu(z):
    x = type(z)(0) if z > type(z)(0) else z
    e = type(z)(_SELU_SCALE * _SELU_ALPHA) * m.exp(x)
    return type(z)(_SELU_SCALE) if z > type(z)(0) else e


@inlined
def d_selu_of_output(a):
    return type(a)(_SELU_SCALE) if a > type(a)(0) else a + type(a)(_SELU_SCALE * _SELU_ALPHA)


@inlined
def exp(z):
    """exp(z), for rates and other positive outputs."""
    return m.exp(z)


@inlined
def d_exp(z):
    return m.exp(z)


@inlined
def d_exp_of_output(a):
    return a


# ---- saturating, and softplus, whose derivative is one of them -----------------------------------------------


@inlined
def sigmoid(z):
    """s = 1 / (1 + exp(-z))."""
    return m.sigmoid(z)


@inlined
def d_sigmoid(z):
    """s (1 - s) = e / (1 + e)^2, e = exp(-|z|): no cancellation in 1 - s."""
    e = m.decay(z)
    return e / ((type(z)(1) + e) * (type(z)(1) + e))


@inlined
def d_sigmoid_of_output(a):
    return a * (type(a)(1) - a)


@inlined
def tanh(z):
    """tanh(z)."""
    return m.tanh(z)


@inlined
def d_tanh(z):
    """1 - tanh^2 z = 4 e / (1 + e)^2, e = exp(-2|z|): no cancellation."""
    e = m.decay(type(z)(2) * clamp(z, 800.0))  # clamped, as 2 z may overflow
    return type(z)(4) * e / ((type(z)(1) + e) * (type(z)(1) + e))


@inlined
def d_tanh_of_output(a):
    return type(a)(1) - a * a


@inlined
def softsign(z):
    """z / (1 + |z|)  [Bergstra et al. 2009]."""
    x = clamp(z, 1e30)  # inf / inf would be NaN; there the quotient is 1 long since
    return x / (type(z)(1) + abs(x))


@inlined
def d_softsign(z):
    """1 / (1 + |z|)^2."""
    r = type(z)(1) / (type(z)(1) + abs(z))
    return r * r


@inlined
def d_softsign_of_output(a):
    """(1 - |a|)^2."""
    r = type(a)(1) - abs(a)
    return r * r


@inlined
def softplus(z):
    """log(1 + exp(z))  [Dugas et al. 2001]."""
    return m.softplus(z)


@inlined
def d_softplus(z):
    return m.sigmoid(z)


@inlined
def d_softplus_of_output(a):
    """1 - exp(-a)."""
    return -m.expm1(-a)


# ---- the table -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Activation:
    """One row of the table: a = f(z), f'(z) = d_f(z) and, where a determines it, f'(z) = d_f_of_output(a).

    The three are scalar functions for Numba loops; the docstring of f holds its equation and source. `initial` names
    the initializer of weights before it, where its name does not say.
    """

    name: str
    f: Callable[[Any], Any]
    d_f: Callable[[Any], Any]
    d_f_of_output: Callable[[Any], Any] | None = None
    initial: str | None = None

    def config(self) -> Any:
        """What a file keeps of it: the name of a row of the table."""
        return self.name


_ROWS = (
    Activation("identity", identity, d_identity, d_identity),
    Activation("relu", relu, d_relu, d_relu),
    Activation("leaky_relu", leaky_relu, d_leaky_relu, d_leaky_relu),
    Activation("elu", elu, d_elu, d_elu_of_output),
    Activation("selu", selu, d_selu, d_selu_of_output),
    Activation("gelu", gelu, d_gelu),
    Activation("gelu_tanh", gelu_tanh, d_gelu_tanh),
    Activation("silu", silu, d_silu),
    Activation("mish", mish, d_mish),
    Activation("softplus", softplus, d_softplus, d_softplus_of_output),
    Activation("softsign", softsign, d_softsign, d_softsign_of_output),
    Activation("sigmoid", sigmoid, d_sigmoid, d_sigmoid_of_output),
    Activation("tanh", tanh, d_tanh, d_tanh_of_output),
    Activation("hard_tanh", hard_tanh, d_hard_tanh, d_hard_tanh),
    Activation("hard_swish", hard_swish, d_hard_swish),
    Activation("exp", exp, d_exp, d_exp_of_output),
)
ACTIVATIONS: dict[str, Activation] = {row.name: row for row in _ROWS}


def activation(name: str | Activation) -> Activation:
    """The activation called `name`, or `name` itself; ConfigError with the nearest valid name if there is none."""
    if isinstance(name, Activation):
        return name
    if callable(name):
        raise plain_function("activation", name)
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise unknown_name("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]
