"""First weights: random numbers whose variance keeps signals and gradients at one scale through the layers.

Glorot   Var W = 2 / (fan_in + fan_out)   a compromise between x -> z and delta -> dx, for f'(0) near 1
He       Var W = 2 / fan_in               relu lets half of E[z^2] through: the 2 makes up for it
LeCun    Var W = 1 / fan_in               Var z = E[x^2], which selu needs to normalise itself

A normal draw has standard deviation sqrt(Var W) and is not truncated; a uniform one lies in [-r, r) with
r = sqrt(3 Var W), whose variance is r^2 / 3.

Sources: X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural networks",
AISTATS 2010. K. He et al., "Delving deep into rectifiers", ICCV 2015. Y. LeCun et al., "Efficient BackProp",
1998. G. Klambauer et al., "Self-normalizing neural networks", NeurIPS 2017 (selu with LeCun's normal).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from gpubp.errors import InputError, unknown_name

Weights = npt.NDArray[np.float64]
Initializer = Callable[[np.random.Generator, tuple[int, int]], Weights]


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight matrix's shape, both at least 1."""
    if len(shape) != 2 or any(isinstance(n, bool) or not isinstance(n, (int, np.integer)) for n in shape):
        raise InputError(f"initializer: expected shape (fan_in, fan_out) of two integers; got {shape!r}")
    fan_in, fan_out = int(shape[0]), int(shape[1])
    if fan_in < 1 or fan_out < 1:
        raise InputError(f"initializer: expected fan_in and fan_out >= 1; got {shape!r}; widen the layer")
    return fan_in, fan_out


def _uniform(rng: np.random.Generator, fans: tuple[int, int], variance: float) -> Weights:
    r = math.sqrt(3.0 * variance)
    return rng.uniform(-r, r, size=fans)


def _normal(rng: np.random.Generator, fans: tuple[int, int], variance: float) -> Weights:
    return rng.normal(0.0, math.sqrt(variance), size=fans)


def glorot_uniform(rng: np.random.Generator, shape: tuple[int, int]) -> Weights:
    """W ~ U[-r, r), r = sqrt(6 / (fan_in + fan_out)); W (fan_in, fan_out) float64. Glorot and Bengio 2010."""
    fans = _fans(shape)
    return _uniform(rng, fans, 2.0 / sum(fans))


def glorot_normal(rng: np.random.Generator, shape: tuple[int, int]) -> Weights:
    """W ~ N(0, 2 / (fan_in + fan_out)); W (fan_in, fan_out) float64. Glorot and Bengio 2010."""
    fans = _fans(shape)
    return _normal(rng, fans, 2.0 / sum(fans))


def he_uniform(rng: np.random.Generator, shape: tuple[int, int]) -> Weights:
    """W ~ U[-r, r), r = sqrt(6 / fan_in); W (fan_in, fan_out) float64. He et al. 2015."""
    fans = _fans(shape)
    return _uniform(rng, fans, 2.0 / fans[0])


def he_normal(rng: np.random.Generator, shape: tuple[int, int]) -> Weights:
    """W ~ N(0, 2 / fan_in); W (fan_in, fan_out) float64. He et al. 2015."""
    fans = _fans(shape)
    return _normal(rng, fans, 2.0 / fans[0])


def lecun_uniform(rng: np.random.Generator, shape: tuple[int, int]) -> Weights:
    """W ~ U[-r, r), r = sqrt(3 / fan_in); W (fan_in, fan_out) float64. LeCun et al. 1998."""
    fans = _fans(shape)
    return _uniform(rng, fans, 1.0 / fans[0])


def lecun_normal(rng: np.random.Generator, shape: tuple[int, int]) -> Weights:
    """W ~ N(0, 1 / fan_in); W (fan_in, fan_out) float64. LeCun et al. 1998."""
    fans = _fans(shape)
    return _normal(rng, fans, 1.0 / fans[0])


def embedding(rng: np.random.Generator, shape: tuple[int, int]) -> Weights:
    """E ~ N(0, 1 / fan_out); E (categories, fan_out) float64: rows of length 1 in the mean, however many there are."""
    fans = _fans(shape)
    return _normal(rng, fans, 1.0 / fans[1])


def zeros(rng: np.random.Generator, shape: tuple[int, int]) -> Weights:
    """W = 0; W (fan_in, fan_out) float64; `rng` is untouched. Hidden units stay alike: for last layers."""
    return np.zeros(_fans(shape))


INITIALIZERS: dict[str, Initializer] = {
    "glorot_uniform": glorot_uniform,
    "glorot_normal": glorot_normal,
    "he_uniform": he_uniform,
    "he_normal": he_normal,
    "lecun_uniform": lecun_uniform,
    "lecun_normal": lecun_normal,
    "embedding": embedding,
    "zeros": zeros,
}

# Activations that pass about half of E[z^2]: near zero for negative z, near the identity for positive z.
RELU_LIKE = frozenset(
    {"relu", "leaky_relu", "elu", "gelu", "gelu_tanh", "silu", "mish", "hard_swish", "softplus"}
)


def initializer(name: str) -> Initializer:
    """The function (rng, (fan_in, fan_out)) -> W called `name`. Raises ConfigError for an unknown name."""
    if name not in list(INITIALIZERS):  # a list: a name of an unhashable type is unknown too
        raise unknown_name("initializer", name, INITIALIZERS)
    return INITIALIZERS[name]


def default_for(activation: str) -> str:
    """The initializer's name that fits the activation which follows the weights.

    - relu and its smooth relatives (`RELU_LIKE`): "he_normal"; they halve E[z^2], He's 2 / fan_in undoes it.
    - selu: "lecun_normal"; its fixed point of mean 0 and variance 1 was derived for Var W = 1 / fan_in.
    - sigmoid, tanh, softsign, hard_tanh, identity, exp, and any other name: "glorot_uniform"; they have no
      dead half, so the scale that serves forward and backward passes alike is right, and bounded draws
      keep saturating units out of their flat ends.
    """
    if activation in RELU_LIKE:
        return "he_normal"
    return "lecun_normal" if activation == "selu" else "glorot_uniform"
