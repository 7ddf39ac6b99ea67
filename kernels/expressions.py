"""Scalar functions for the loops of this folder, made of expressions: lists of operations over earlier ones.

    [["symbol", "x"], ["sigmoid", 0], ["mul", 0, 1]]      x sigmoid(x)

An entry is ["symbol", name of an argument], ["constant", number], or an operation of `_FORMS` with the places of its
operands; the last entry is the result. The function is written as one assignment for each entry, constants in the type
of the first argument and mathematics of mathematics.py, so that it is inlined, packed and cached like those written by
hand: its name, under which this module has it, carries a digest of the expression.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from gpubp.kernels import mathematics
from gpubp.kernels.mathematics import inlined

Expression = Sequence[Sequence[Any]]

_MATHEMATICS = (
    "exp", "expm1", "log", "log1p", "tanh", "sigmoid", "softplus", "tanh_softplus", "d_tanh_softplus", "erf", "sqrt",
    "sin", "cos",
)  # fmt: skip
# How an operation is written over its operands. NaN stays NaN but in a choice of constants.
_FORMS = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "-{0}",
    "pow": "{0} ** {1}",
    "abs": "abs({0})",
    "where": "m.where({0}, {1}, {2}, {3})",
    "relu": "m.where_or_nan({0}, {type}(0), {0}, {type}(0))",
    "maximum": "m.where_or_nan({0}, {1}, {0}, {1})",
    "minimum": "m.where_or_nan({1}, {0}, {0}, {1})",
    **{name: f"m.{name}({{0}})" for name in _MATHEMATICS},
}


def scalar_function(name: str, expression: Expression, arguments: Sequence[str]) -> Callable[..., Any]:
    """The function of these arguments that the expression describes; the same object for the same expression."""
    text = json.dumps([expression, list(arguments)])
    full = f"{name}_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    made: Callable[..., Any] | None = globals().get(full)
    if made is None:
        # Where it is found by name, Numba's cache takes it by name; and so does a pickle.
        names: dict[str, Any] = {"m": mathematics, "__name__": __name__}
        exec(compile(source(full, expression, arguments), f"<{full}>", "exec"), names)
        made = globals().setdefault(full, inlined(names[full]))
    return made


def source(name: str, expression: Expression, arguments: Sequence[str]) -> str:
    """The text of the function: every operand is computed before a choice is made, so that loops stay packed."""
    real = f"type({arguments[0]})"
    depends, shared = _depends(expression), _shared_divisors(expression)
    terms: list[str] = []
    lines: list[str] = []
    for k, (op, *operands) in enumerate(expression):
        if op == "symbol":
            terms.append(operands[0])
        elif op == "constant":
            terms.append(f"{real}({float(operands[0])!r})")
        else:
            parts = [terms[i] for i in operands]
            if op == "div" and operands[1] in shared:
                lines.append(f"t{k} = {parts[0]} * r{operands[1]}")
                terms.append(f"t{k}")
                continue
            lines.append(f"t{k} = {_form(op, operands, parts, expression, depends, real)}")
            terms.append(f"t{k}")
        if k in shared:
            lines.append(f"r{k} = {real}(1) / {terms[k]}")
    head = f"def {name}({', '.join(arguments)}):"
    return "\n    ".join([head, *lines, f"return {terms[-1]}"]) + "\n"


def _form(
    op: str, operands: Sequence[int], parts: list[str], expression: Expression, depends: list[bool], real: str
) -> str:
    if op == "div" and expression[operands[1]][0] == "constant":
        return f"{parts[0]} * {real}({1 / float(expression[operands[1]][1])!r})"
    if op == "where" and depends[operands[2]] and not depends[operands[3]]:
        return "m.where_or_nan({}, {}, {}, {})".format(*parts)  # a NaN goes the way that lets it through
    return _FORMS[op].format(*parts, type=real)


def _shared_divisors(expression: Expression) -> set[int]:
    """What several quotients divide by, and is no constant: one division then serves them all."""
    divisors = [operands[1] for op, *operands in expression if op == "div"]
    return {i for i in divisors if divisors.count(i) > 1 and expression[i][0] != "constant"}


def _depends(expression: Expression) -> list[bool]:
    """Whether each entry depends on an argument."""
    found: list[bool] = []
    for op, *operands in expression:
        found.append(op == "symbol" or (op != "constant" and any(found[i] for i in operands)))
    return found
