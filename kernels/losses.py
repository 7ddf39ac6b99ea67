"""Losses: each value beside its derivative; the passes that apply them stand in loss_passes.py.

The statistics of a loss, a float64 vector that the kernels of a step share, are

    stats[LOSS]          loss of this batch, the mean of l weighted by w; a penalty adds its value
    stats[WEIGHT]        sum of the sample weights w of this batch
    stats[LOSS_SUM]      += LOSS * WEIGHT          so that LOSS_SUM / WEIGHT_SUM is the mean over an epoch, without
    stats[WEIGHT_SUM]    += WEIGHT                 penalties
    stats[PENALTY_SUM]   += penalty * WEIGHT
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpubp.errors import plain_function, unknown_name

from .mathematics import exp, expm1, inlined, log1p, sigmoid

LOSS, WEIGHT, LOSS_SUM, WEIGHT_SUM, PENALTY_SUM = range(5)
STATS = 5


@inlined
def half_sse(a, y):
    return type(a)(0.5) * (a - y) * (a - y)


@inlined
def d_half_sse(a, y):
    return a - y


@inlined
def squared_error(a, y):
    return (a - y) * (a - y)


@inlined
def d_squared_error(a, y):
    return type(a)(2) * (a - y)


@inlined
def absolute_error(a, y):
    return abs(a - y)


@inlined
def d_absolute_error(a, y):
    r = a - y  # the subgradient at 0 is 0; NaN stays NaN
    return type(a)(1) if r > 0 else (type(a)(-1) if r < 0 else r)


@inlined
def huber(a, y):
    r = abs(a - y)
    return type(a)(0.5) * r * r if r <= 1 else r - type(a)(0.5)


@inlined
def d_huber(a, y):
    r = a - y
    return type(a)(1) if r > 1 else (type(a)(-1) if r < -1 else r)


@inlined
def poisson(z, y):
    return exp(z) - y * z


@inlined
def d_poisson(z, y):
    return exp(z) - y


@inlined
def logistic(z, y):
    # -y ln s(z) - (1-y) ln(1-s(z)), rearranged so that no exponential overflows
    return (z if z > 0 else type(z)(0)) - y * z + log1p(exp(-abs(z)))


@inlined
def d_logistic(z, y):
    return sigmoid(z) - y


# ---- behind a softmax: scalars of ln p, p = exp(a - top) / sum exp(a - top), the derivatives by ln p too -------------


@inlined
def larger(a, b):
    """max(a, b); NaN where either is."""
    return a if a > b or a != a else b


@inlined
def cross_entropy(log_p):
    """-ln p."""
    return -log_p


@inlined
def d_cross_entropy(log_p):
    return type(log_p)(-1)


@inlined
def focal(log_p):
    """-(1 - p)^2 ln p: classes that are told well count less  [Lin et al. 2017, arXiv:1708.02002, gamma = 2]."""
    rest = -expm1(log_p)
    return -rest * rest * log_p


@inlined
def d_focal(log_p):
    rest = -expm1(log_p)
    return rest * (type(log_p)(2) * exp(log_p) * log_p - rest)


@inlined
def d_softmax(e, pull, inverse):
    """p sum pull - pull, for e = exp(a - top), pull = -y dl/d ln p of each output, and inverse = sum pull / sum e."""
    return e * inverse - pull


@dataclass(frozen=True)
class Loss:
    """A loss: E = sum_i w_i l_i / sum_i w_i over the examples of a batch.

    `l` and `d_l` are scalars of (output, target), summed over the outputs of an example, or averaged where
    `mean_over_outputs`. Behind a `softmax`, whose outputs depend on each other, they are scalars of ln p, weighted by
    the target and summed, and targets may be class numbers. `logits` says that the loss applies its own link, so that
    the network's output activation is "identity". It is defined for `outputs` and `targets` between two numbers.
    """

    name: str
    l: Callable[..., Any]
    d_l: Callable[..., Any]
    mean_over_outputs: bool = False
    logits: bool = False
    softmax: bool = False
    targets: tuple[float, float] = (-math.inf, math.inf)
    outputs: tuple[float, float] = (-math.inf, math.inf)

    def config(self) -> Any:
        """What a file keeps of it: the name of a row of the table."""
        return self.name


_POSITIVE = (0.0, math.inf)
LOSSES = {
    loss.name: loss
    for loss in (
        Loss("half_sse", half_sse, d_half_sse),
        Loss("sse", squared_error, d_squared_error),
        Loss("mse", squared_error, d_squared_error, mean_over_outputs=True),
        Loss("mae", absolute_error, d_absolute_error, mean_over_outputs=True),
        Loss("huber", huber, d_huber, mean_over_outputs=True),
        Loss("poisson", poisson, d_poisson, mean_over_outputs=True, logits=True, targets=_POSITIVE),
        Loss("binary_cross_entropy", logistic, d_logistic, logits=True, targets=(0.0, 1.0)),
        Loss(
            "softmax_cross_entropy",
            cross_entropy,
            d_cross_entropy,
            logits=True,
            softmax=True,
            targets=_POSITIVE,
        ),
        Loss("focal", focal, d_focal, logits=True, softmax=True, targets=_POSITIVE),
    )
}


def loss(name: str | Loss) -> Loss:
    """The loss called `name`, or `name` itself; ConfigError with the nearest name otherwise."""
    if isinstance(name, Loss):
        return name
    if callable(name):
        raise plain_function("loss", name)
    if not isinstance(name, str) or name not in LOSSES:
        raise unknown_name("loss", name, LOSSES)
    return LOSSES[name]
