"""Floating-point operations of a launch, as its equation has them, whatever code computes it.

One for each addition, product, quotient, comparison or elementary function (exp, log, square root, an activation or
its derivative, a loss or its derivative); none for copies, for the identity and for the check that numbers are finite.
"""

from __future__ import annotations

from gpubp.backend.base import Array
from gpubp.kernels.activations import Activation
from gpubp.kernels.losses import Loss
from gpubp.kernels.optimizers import Rule

_UPDATE = {"plain_sgd": 5, "sgd": 9, "adam": 16, "adamw": 16, "rmsprop": 12, "adagrad": 10, "lion": 10}


def max_norm(W: Array) -> int:
    """Squares and their sum, and the product with the factor."""
    return 3 * int(W.size)


def product(m: int, k: int, n: int) -> int:
    """C = A B: k products and k sums for each of m x n entries."""
    return 2 * m * k * n


def bias_activation(z: Array, g: Activation) -> int:
    """a = g(z + b)."""
    return int(z.size) * (1 + _of(g))


def dropout(x: Array) -> int:
    """A comparison and a product; drawing the bits is left out."""
    return 2 * int(x.size)


def bias_activation_dropout(z: Array, g: Activation) -> int:
    """z + b, g and g', a comparison, two products."""
    return int(z.size) * (4 + 2 * _of(g))


def delta(upstream: Array, g: Activation) -> int:
    """delta = upstream * g'(z), and the column sums of delta."""
    return int(upstream.size) * (2 * _of(g) + 1)


def normalize(x: Array, g: Activation, center: bool) -> int:
    """Mean, or none; x - m, its square and their sum; times r and gain, plus bias; g. A row: quotients, eps, root."""
    return int(x.size) * (5 + 2 * center + _of(g)) + (4 + center) * int(x.shape[0])


def normalize_gradients(x: Array, g: Activation) -> int:
    """n and z; d = upstream g'(z); d n; both sums."""
    return int(x.size) * (7 + 2 * _of(g))


def normalize_delta(x: Array, g: Activation, center: bool) -> int:
    """The gradients, and gain d = g; the means of g and g n, or that of g n alone; dE/dx."""
    row = (1 + center) * int(x.shape[0])
    return normalize_gradients(x, g) + int(x.size) * (6 + 2 * center) + row


def batch_normalize(x: Array, g: Activation) -> int:
    """The mean; x - m, its square and their sum; times r and gain, plus bias; g. A column: quotients, eps, root."""
    return int(x.size) * (8 + _of(g)) + 5 * int(x.shape[1])


def batch_normalize_delta(x: Array, g: Activation) -> int:
    """n and z; d = upstream g'(z); d n; both sums; n again, two products and differences, gain r. A column: 1 / B."""
    return int(x.size) * (14 + 2 * _of(g)) + 3 * int(x.shape[1])


def normalize_by_running(x: Array, g: Activation) -> int:
    """x - m, times r and gain, plus bias; g. A column: eps, root, quotient."""
    return int(x.size) * (4 + _of(g)) + 3 * int(x.shape[1])


def follow(mean: Array) -> int:
    """A difference, a product and a sum for each of the two; the variance times its correction."""
    return 7 * int(mean.size)


def gated(a: Array, g: Activation, *, keep: bool) -> int:
    """u + b, v + b, g and the product with v; kept with g' and its product with v."""
    return int(a.size) * (3 + _of(g) + keep * (1 + _of(g)))


def gated_delta(delta: Array) -> int:
    """The product with what was kept, and its column sums."""
    return 2 * int(delta.size)


def loss_delta(loss: Loss, g: Activation, z: Array, y: Array) -> int:
    """a = g(z + b); the loss of a, weighted and summed; delta = factor * d_l * g'(z); its column sums."""
    links = 1 + 3 * _of(g)
    if not loss.softmax:  # l, times w, sum; d_l, times factor, sum for db
        return int(z.size) * (links + 6)
    # maximum, less it, exp, sum; quotient, less y, times factor, sum for db; then log, weight and sum of an example
    softmax = int(z.size) * (links + 8) + 3 * int(z.shape[0])
    # log of the sum less a: once for a class number; for probabilities at every output, times y, and two sums
    return softmax + (int(z.shape[0]) if y.ndim == 1 else 4 * int(z.size))


def penalty(weights: Array) -> int:
    """l1 |w| + l2/2 w w, summed; l1 sign(w) + l2 w, added to the gradient."""
    return 9 * int(weights.size)


def clip(gradients: Array, by_value: bool, by_norm: bool) -> int:
    """Two comparisons of each entry; its square, summed."""
    return 2 * (by_value + by_norm) * int(gradients.size)


def update(rule: Rule, parameters: Array) -> int:
    """The rule's scalar step, weight decay and gradient factor included; what a step computes once is left out."""
    return _UPDATE.get(rule.step.__name__, 0) * int(parameters.size)


def muon_direction(gradient: Array) -> int:
    """factor G, M, U, its square, their sum, U / |U|; what the second pass computes again is left out."""
    return 10 * int(gradient.size)


def muon_polynomial(gram: Array) -> int:
    """b A + c A A, and a on the diagonal."""
    return 3 * int(gram.size) + int(gram.shape[0])


def muon_step(W: Array) -> int:
    """Two products, two differences."""
    return 4 * int(W.size)


def average(parameters: Array) -> int:
    """e + c (p - e)."""
    return 3 * int(parameters.size)


def accumulate(gradients: Array, first: bool) -> int:
    """(1 - c) mean + c g; the first is only kept."""
    return 0 if first else 3 * int(gradients.size)


def _of(g: Activation) -> int:
    return 0 if g.name == "identity" else 1
