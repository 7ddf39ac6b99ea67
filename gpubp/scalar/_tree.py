"""An expression as plain JSON, and back: a list of operations, each over the numbers of earlier ones.

    x * sigmoid(1.5 * x)     [["symbol", "x"], ["constant", 1.5], ["mul", 1, 0], ["sigmoid", 2], ["mul", 0, 3]]

The last one is the result. Nothing in it is ever run: what is not an operation of OPS is an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gpubp.errors import InputError

from ._derive import MOST_OPERATIONS
from ._value import OPS, Value, history

Tree = list[list[Any]]
_LARGEST = 3.0e38  # a constant is a number in float32 too


def to_tree(root: Value, what: str) -> Tree:
    """The expression as plain lists. InputError where it is too long, or a constant too large."""
    order = history(root)
    place = {id(v): k for k, v in enumerate(order)}
    if len(order) > MOST_OPERATIONS:
        raise InputError(
            f"{what}: expected at most {MOST_OPERATIONS} operations; got {len(order)}; use fewer"
        )
    tree: Tree = []
    for v in order:
        if v.op == "constant":
            if not abs(v.data) <= _LARGEST:
                raise InputError(
                    f"{what}: expected constants that float32 holds; got {v.data:g}; use smaller ones"
                )
            tree.append(["constant", v.data])
        elif v.op == "symbol":
            tree.append(["symbol", v.label])
        else:
            tree.append([v.op, *(place[id(parent)] for parent in v.parents)])
    return tree


def from_tree(tree: Any, names: Sequence[str] | Mapping[str, Value]) -> Value:
    """The expression of a tree over symbols of these names, or over these Values. InputError where it is none."""
    if not isinstance(tree, (list, tuple)) or not 1 <= len(tree) <= MOST_OPERATIONS:
        raise InputError(
            f"expression: expected a list of 1 to {MOST_OPERATIONS} operations; got {tree!r:.80}"
        )
    symbols = names if isinstance(names, Mapping) else {name: Value.symbol(name) for name in names}
    made: list[Value] = []
    for k, node in enumerate(tree):
        op, *operands = list[Any](node if isinstance(node, (list, tuple)) and node else [None])
        if op == "symbol" and len(operands) == 1 and operands[0] in list(symbols):
            made.append(symbols[operands[0]])
        elif op == "constant" and len(operands) == 1 and _is_number(operands[0]):
            made.append(Value(operands[0]))
        elif op in list(OPS) and len(operands) == OPS[op].arity and all(_is_earlier(i, k) for i in operands):
            made.append(Value.of(op, *(made[i] for i in operands)))
        else:
            raise InputError(
                f"expression: expected an operation of earlier ones as entry {k}; got {node!r:.80}; the file is "
                "damaged or was written by a newer gpubp"
            )
    return made[-1]


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and abs(value) <= _LARGEST
        and math.isfinite(value)
    )


def _is_earlier(value: Any, k: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < k
