"""Expressions made shorter: equal parts shared, constants folded, and sums, products and quotients rewritten.

Formulas that overflow on the way to a finite result take their stable form: 1 / (1 + exp(-x)) is sigmoid(x) and
log(1 + exp(x)) is softplus(x). An equal value may be rounded otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ._value import Value, history

_MOST_SQUARINGS = 16  # powers up to which x ** n becomes products
_COMMUTE = ("add", "mul")


class Simplifier:
    """Makes Values, each only once: the same operation of the same operands is the same object."""

    def __init__(self) -> None:
        self._made: dict[Any, Value] = {}
        self._age: dict[int, int] = {}  # by id: the order of operands that commute

    def __call__(self, root: Value, replace: dict[int, Value] | None = None) -> Value:
        """`root` simplified; what `replace` names by id of a Value of `root` takes that one's place."""
        new: dict[int, Value] = {}
        for v in history(root):
            if replace and id(v) in replace:
                new[id(v)] = replace[id(v)]
            elif v.op == "constant":
                new[id(v)] = self.constant(v.data)
            elif v.op == "symbol":
                new[id(v)] = self._once(("symbol", v.label), v)
            else:
                new[id(v)] = self.make(v.op, *(new[id(parent)] for parent in v.parents))
        return new[id(root)]

    def constant(self, number: float) -> Value:
        """The constant of that number."""
        return self._once(("constant", float(number)), Value(number))

    def make(self, op: str, *operands: Value | float) -> Value:
        """The operation, in its simplest form."""
        parts = [v if isinstance(v, Value) else self.constant(v) for v in operands]
        if all(v.op == "constant" for v in parts):
            folded = Value.of(op, *parts)
            if math.isfinite(folded.data):
                return self.constant(folded.data)
        if op in _COMMUTE:  # constants first, then the older
            parts.sort(key=lambda v: (v.op != "constant", self._age[id(v)]))
        rule = getattr(self, f"_{op}", None)
        simpler: Value | None = rule(*parts) if rule else None
        if simpler is not None:
            return simpler
        return self._once((op, *(id(v) for v in parts)), Value.of(op, *parts))

    def _once(self, key: Any, new: Value) -> Value:
        found = self._made.setdefault(key, new)
        self._age.setdefault(id(found), len(self._age))
        return found

    # the rules: a simpler Value, or None where there is none

    def _add(self, a: Value, b: Value) -> Value | None:
        if number(a) == 0:
            return b
        if number(a) is not None and b.op == "add" and number(b.parents[0]) is not None:
            return self.make("add", number(a) + number(b.parents[0]), b.parents[1])  # type: ignore[operator]
        if number(a) == -1 and b.op == "exp":
            return self.make("expm1", *b.parents)
        if b.op == "neg":
            return self.make("sub", a, *b.parents)
        if a.op == "neg":
            return self.make("sub", b, *a.parents)
        if number(a) is not None and b.op == "where":
            return self._inside("add", a, b)
        for one, other in ((a, b), (b, a)):
            if (
                one.op == "add" and number(one.parents[0]) is not None and number(other) is None
            ):  # (c + u) + v = c + (u + v)
                return self.make("add", one.parents[0], self.make("add", one.parents[1], other))
        return self._alike("add", a, b)

    def _sub(self, a: Value, b: Value) -> Value | None:
        if a is b:
            return self.constant(0.0)
        if number(b) is not None:
            return self.make("add", -number(b), a)  # type: ignore[operator]
        if number(a) == 0:
            return self.make("neg", b)
        if number(a) is not None and b.op == "where":
            return self._inside("sub", a, b)
        if b.op == "neg":
            return self.make("add", a, *b.parents)
        if a.op == "sub" and a.parents[1] is b:
            return self.make("sub", a.parents[0], self.make("mul", 2.0, b))
        return self._alike("sub", a, b)

    def _inside(self, op: str, a: Value, b: Value) -> Value:
        """A constant and a choice: a choice, whose constant branch stays one."""
        return self.make("where", *b.parents[:2], *(self.make(op, a, v) for v in b.parents[2:]))

    def _alike(self, op: str, a: Value, b: Value) -> Value | None:
        """c u + d u = (c + d) u; two choices under one condition."""
        (c, u), (d, v) = multiple(a), multiple(b)
        if u is v:
            return self.make("mul", c + d if op == "add" else c - d, u)
        return self._both(op, a, b)

    def _both(self, op: str, a: Value, b: Value) -> Value | None:
        """Two choices under one condition are one choice."""
        if a.op != "where" or b.op != "where" or not same(a.parents[:2], b.parents[:2]):
            return None
        pairs = zip(a.parents[2:], b.parents[2:], strict=True)
        return self.make("where", *a.parents[:2], *(self.make(op, p, q) for p, q in pairs))

    def _mul(self, a: Value, b: Value) -> Value | None:
        c = number(a)
        if c is not None:
            return self._scaled(c, b)
        for one, other in ((a, b), (b, a)):
            if one.op == "neg":
                return self.make("neg", self.make("mul", *one.parents, other))
            if number(one.parents[0] if one.parents else one) is not None:
                k = number(one.parents[0] if one.parents else one)
                if one.op == "mul":  # (k u) v = k (u v)
                    return self.make("mul", k, self.make("mul", one.parents[1], other))  # type: ignore[arg-type]
                if one.op == "div":  # (k / u) v = k v / u
                    return self.make("div", self.make("mul", k, other), one.parents[1])  # type: ignore[arg-type]
            if one.op == "div" and number(one.parents[1]) is not None:  # (u / k) v = u v / k
                return self.make("div", self.make("mul", one.parents[0], other), one.parents[1])
            if one.op == "where" and all(number(v) is not None for v in one.parents[2:]):
                # Where one branch is 0 the other factor does not count, even if it is no number there.
                return self.make(
                    "where", *one.parents[:2], *(self.make("mul", v, other) for v in one.parents[2:])
                )
        return self._both("mul", a, b)

    def _scaled(self, c: float, b: Value) -> Value | None:
        """c b."""
        if c in (0.0, 1.0):
            return self.constant(0.0) if c == 0 else b
        if c == -1:
            return self.make("neg", b)
        if b.op == "neg":
            return self.make("mul", -c, *b.parents)
        if b.op in ("mul", "add", "sub") and number(b.parents[0]) is not None:
            k, u = number(b.parents[0]), b.parents[1]
            assert k is not None
            return (
                self.make("mul", c * k, u)
                if b.op == "mul"
                else self.make(b.op, c * k, self.make("mul", c, u))
            )
        if b.op == "div" and number(b.parents[1]) is not None:
            k = number(b.parents[1])
            assert k is not None
            return b.parents[0] if c == k else self.make("mul", c / k, b.parents[0]) if k else None
        if b.op == "div" and number(b.parents[0]) is not None:
            return self.make("div", c * number(b.parents[0]), b.parents[1])  # type: ignore[operator]
        return self._inside("mul", self.constant(c), b) if b.op == "where" else None

    def _neg(self, a: Value) -> Value | None:
        if a.op == "neg":
            return a.parents[0]
        if a.op == "sub":
            return self.make("sub", *reversed(a.parents))
        if a.op == "mul" and number(a.parents[0]) is not None:
            return self.make("mul", -number(a.parents[0]), a.parents[1])  # type: ignore[operator]
        if a.op == "add" and number(a.parents[0]) is not None:
            return self.make("sub", -number(a.parents[0]), a.parents[1])  # type: ignore[operator]
        if a.op == "where":
            return self.make("where", *a.parents[:2], *(self.make("neg", v) for v in a.parents[2:]))
        return None

    def _div(self, a: Value, b: Value) -> Value | None:
        if number(a) == 0 or number(b) == 1:
            return a
        if a.op == "neg":
            return self.make("neg", self.make("div", *a.parents, b))
        k = number(b)
        if k and a.op == "mul" and number(a.parents[0]) is not None:
            return self.make("mul", number(a.parents[0]) / k, a.parents[1])  # type: ignore[operator]
        if k and a.op in ("add", "sub") and number(a.parents[0]) is not None:
            return self.make(a.op, number(a.parents[0]) / k, self.make("div", a.parents[1], b))  # type: ignore[operator]
        if k and a.op == "where":
            return self.make("where", *a.parents[:2], *(self.make("div", v, b) for v in a.parents[2:]))
        if k and a.op == "div" and number(a.parents[1]) is not None:
            return self.make("div", a.parents[0], k * number(a.parents[1]))  # type: ignore[operator]
        if b.op == "add" and number(b.parents[0]) == 1 and b.parents[1].op == "exp":
            (u,) = b.parents[1].parents
            if a.op == "exp" and a.parents[0] is u:
                return self.make("sigmoid", u)
            return self.make("mul", a, self.make("sigmoid", self.make("neg", u)))
        return self._tanh_of_exponentials(a, b)

    def _tanh_of_exponentials(self, a: Value, b: Value) -> Value | None:
        """(exp(u) - exp(-u)) / (exp(u) + exp(-u))."""
        if (a.op, b.op) != ("sub", "add") or {v.op for v in (*a.parents, *b.parents)} != {"exp"}:
            return None
        if {id(v) for v in a.parents} != {id(v) for v in b.parents}:
            return None
        (u,), (v,) = (e.parents for e in a.parents)
        return self.make("tanh", u) if self.make("neg", u) is v else None

    def _pow(self, a: Value, b: Value) -> Value | None:
        c = number(b)
        if c is None:
            return None
        if c == 0.5:
            return self.make("sqrt", a)
        if c < 0:
            return self.make("div", 1.0, self.make("pow", a, -c))
        if c != int(c) or c > _MOST_SQUARINGS:
            return None
        if c < 2:
            return a if c else self.constant(1.0)
        half = self.make("pow", a, c // 2)
        square = self.make("mul", half, half)
        return self.make("mul", square, a) if c % 2 else square

    def _log(self, a: Value) -> Value | None:
        if a.op == "exp":
            return a.parents[0]
        if a.op == "add" and number(a.parents[0]) == 1:
            return self.make("log1p", a.parents[1])
        return None

    def _tanh(self, a: Value) -> Value | None:
        return self.make("tanh_softplus", *a.parents) if a.op == "softplus" else None

    def _log1p(self, a: Value) -> Value | None:
        return self.make("softplus", *a.parents) if a.op == "exp" else None

    def _younger(self, these: Sequence[Value], those: Sequence[Value]) -> bool:
        return max(self._age[id(v)] for v in these) > max(self._age[id(v)] for v in those)

    def _abs(self, a: Value) -> Value | None:
        return a if a.op == "abs" else self.make("abs", *a.parents) if a.op == "neg" else None

    def _relu(self, a: Value) -> Value:
        return self.make("where", a, 0.0, a, 0.0)

    def _maximum(self, a: Value, b: Value) -> Value:
        return self.make("where", a, b, a, b)

    def _minimum(self, a: Value, b: Value) -> Value:
        return self.make("where", b, a, a, b)

    def _where(self, a: Value, b: Value, p: Value, q: Value) -> Value | None:
        if p is q:
            return p
        if number(a) is not None and number(b) is not None:
            return p if number(a) > number(b) else q  # type: ignore[operator]
        if p.op == "where" and same(p.parents[:2], (a, b)):
            return self.make("where", a, b, p.parents[2], q)
        if q.op == "where" and same(q.parents[:2], (a, b)):
            return self.make("where", a, b, p, q.parents[3])
        if p.op == "where" and p.parents[3] is q and self._younger(p.parents[:2], (a, b)):
            # Two conditions, both of which have to hold: in one order, so that equal choices are one object.
            return self.make("where", *p.parents[:2], self.make("where", a, b, p.parents[2], q), q)
        (c, u), (d, v) = multiple(a), multiple(b)
        if u is v and u.op != "constant" and c != d:  # c u > d u
            zero = self.constant(0.0)
            return self.make("where", *((u, zero) if c > d else (zero, u)), p, q)
        return None


def same(these: Sequence[Value], those: Sequence[Value]) -> bool:
    """Whether these are those; == would compare numbers."""
    return all(a is b for a, b in zip(these, those, strict=True))


def number(v: Value) -> float | None:
    """The number of a constant, None for anything else."""
    return v.data if v.op == "constant" else None


def multiple(v: Value) -> tuple[float, Value]:
    """(c, u) with v = c u."""
    if v.op == "mul" and v.parents[0].op == "constant":
        return v.parents[0].data, v.parents[1]
    if v.op == "neg":
        return -1.0, v.parents[0]
    return 1.0, v
