"""Scalar automatic differentiation: numbers that know their derivatives, and expressions that have them derived.

`Value` is the engine, in one short file. `gpubp.activation` and `gpubp.loss` trace a function with its symbols.
"""

from ._derive import derivative, derivative_of_output, is_of_output, trace
from ._draw import formula
from ._numbers import constants, crossings, evaluate, evaluate_all, probes
from ._simplify import Simplifier
from ._tree import Tree, from_tree, to_tree
from ._value import (
    OPS,
    Value,
    cos,
    erf,
    exp,
    expm1,
    history,
    log,
    log1p,
    maximum,
    minimum,
    relu,
    sigmoid,
    sin,
    softplus,
    sqrt,
    tanh,
    where,
)

__all__ = [
    "OPS",
    "Simplifier",
    "Tree",
    "Value",
    "constants",
    "cos",
    "crossings",
    "derivative",
    "derivative_of_output",
    "erf",
    "evaluate",
    "evaluate_all",
    "exp",
    "expm1",
    "formula",
    "from_tree",
    "history",
    "is_of_output",
    "log",
    "log1p",
    "maximum",
    "minimum",
    "probes",
    "relu",
    "sigmoid",
    "sin",
    "softplus",
    "sqrt",
    "tanh",
    "to_tree",
    "trace",
    "where",
]
