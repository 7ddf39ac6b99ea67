"""A number that remembers what it was made of, so that one sweep backwards gives its derivative by each of them.

    x, y = Value(3.0), Value(-4.0)
    f = x * y + tanh(x)
    f.backward()
    x.grad, y.grad          # df/dx, df/dy

A Value without a number is a symbol: the same operations then build an expression, and the same sweep its derivative.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpubp.errors import InputError

_erf = np.vectorize(math.erf, otypes=[float])


class Op(NamedTuple):
    """An operation: y of its operands as numbers, and beside it dy by each operand, of numbers or of Values.

    `slopes` takes the operands and y. `of_output`, where y alone gives the slope in another way, takes y.
    """

    number: Callable[..., Any]
    slopes: Callable[..., tuple[Any, ...]]
    of_output: Callable[[Any], Any] | None = None

    @property
    def arity(self) -> int:
        """How many operands it takes."""
        return self.slopes.__code__.co_argcount - 1  # y comes last


OPS = {
    "add": Op(operator.add, lambda a, b, y: (1.0, 1.0)),
    "sub": Op(operator.sub, lambda a, b, y: (1.0, -1.0)),
    "mul": Op(operator.mul, lambda a, b, y: (b, a)),
    "div": Op(np.true_divide, lambda a, b, y: (1.0 / b, -y / b)),
    "neg": Op(operator.neg, lambda a, y: (-1.0,)),
    "pow": Op(np.float_power, lambda a, b, y: (b * a ** (b - 1.0), y * log(a))),
    "abs": Op(abs, lambda a, y: (where(a > 0.0, 1.0, where(a < 0.0, -1.0, 0.0)),)),
    "relu": Op(lambda a: np.maximum(a, 0.0), lambda a, y: (where(a > 0.0, 1.0, 0.0),)),
    "maximum": Op(np.maximum, lambda a, b, y: (where(a > b, 1.0, 0.0), where(a > b, 0.0, 1.0))),
    "minimum": Op(np.minimum, lambda a, b, y: (where(b > a, 1.0, 0.0), where(b > a, 0.0, 1.0))),
    # p where a > b, else q
    "where": Op(
        lambda a, b, p, q: np.where(a > b, p, q),
        lambda a, b, p, q, y: (0.0, 0.0, where(a > b, 1.0, 0.0), where(a > b, 0.0, 1.0)),
    ),
    "exp": Op(np.exp, lambda a, y: (y,)),
    "expm1": Op(np.expm1, lambda a, y: (y + 1.0,)),
    "log": Op(np.log, lambda a, y: (1.0 / a,)),
    "log1p": Op(np.log1p, lambda a, y: (1.0 / (1.0 + a),)),
    "sqrt": Op(np.sqrt, lambda a, y: (0.5 / y,)),
    "tanh": Op(np.tanh, lambda a, y: (1.0 - y * y,)),
    "sigmoid": Op(lambda a: np.exp(-np.logaddexp(0.0, -a)), lambda a, y: (y * (1.0 - y),)),
    "softplus": Op(
        lambda a: np.logaddexp(a, 0.0), lambda a, y: (sigmoid(a),), of_output=lambda y: -expm1(-y)
    ),
    # The simplifier makes these two of tanh(softplus(a)).
    "tanh_softplus": Op(lambda a: np.tanh(np.logaddexp(a, 0.0)), lambda a, y: (d_tanh_softplus(a),)),
    # (1 - tanh^2(softplus(a))) sigmoid(a), without the cancellation of 1 - tanh^2
    "d_tanh_softplus": Op(
        lambda a: np.exp(-np.logaddexp(0.0, -a)) / np.cosh(np.logaddexp(a, 0.0)) ** 2,
        lambda a, y: (y * (1.0 - sigmoid(a) * (1.0 + 2.0 * tanh_softplus(a))),),
    ),
    "erf": Op(_erf, lambda a, y: (2.0 / math.sqrt(math.pi) * exp(-a * a),)),
    "sin": Op(np.sin, lambda a, y: (cos(a),)),
    "cos": Op(np.cos, lambda a, y: (-sin(a),)),
}  # fmt: skip


class Value:
    """A number with a history: `data`, the operation `op` and the operands `parents` that made it, and `grad`.

    Supports + - * / **, abs, comparisons, and the functions of this module. After `y.backward()`, grad of each Value
    that y was made of is dy by it. `Value.symbol("x")` has no number: asking for it is an InputError.
    """

    __slots__ = ("_data", "grad", "label", "op", "parents")
    __array_priority__ = 1000.0  # numpy's scalars leave operators to __radd__ and its kin

    def __init__(self, data: Any, label: str = "") -> None:
        try:
            self._data: float | None = float(data)
        except (TypeError, ValueError):
            raise InputError(f"expected a number; got {data!r:.60}") from None
        self.grad, self.label, self.op = 0.0, label, "constant"
        self.parents: tuple[Value, ...] = ()

    @classmethod
    def symbol(cls, name: str) -> Value:
        """A Value that stands for any number."""
        new = cls(0.0, name)
        new._data, new.op = None, "symbol"
        return new

    @classmethod
    def of(cls, op: str, *operands: Any) -> Value:
        """The Value of an operation of OPS; plain numbers become constants. InputError: not as many as it takes."""
        rule, new = _rule(op, operands), cls(0.0)
        new.op, new.parents = op, tuple(v if isinstance(v, Value) else cls(v) for v in operands)
        numbers = [parent._data for parent in new.parents]
        with np.errstate(all="ignore"):
            new._data = None if None in numbers else float(rule.number(*numbers))
        return new

    @property
    def data(self) -> float:
        """The number; InputError for a symbol and whatever was made of one."""
        return self._number("reads the number that x stands for, which a trace does not have; compute with x")

    def _number(self, what: str) -> float:
        if self._data is None:
            raise InputError(what)
        return self._data

    def backward(self) -> None:
        """Sets grad of everything that this Value was made of, and 1 as its own."""
        order = history(self)
        for v in order:
            v.grad = 0.0
        self.grad = 1.0
        with np.errstate(all="ignore"):
            for v in reversed(order):
                if v.parents:
                    slopes = OPS[v.op].slopes(*(np.float64(p.data) for p in v.parents), v.data)
                    for parent, slope in zip(v.parents, slopes, strict=True):
                        parent.grad += float(slope) * v.grad

    def text(self) -> str:
        """The graph as one line for each operation."""
        from ._draw import text

        return text(self)

    def svg(self) -> str:
        """The graph as a picture, an SVG document."""
        from ._draw import svg

        return svg(self)

    def __repr__(self) -> str:
        return f"Value({self.label or 'symbol' if self._data is None else f'{self._data:g}'}, grad={self.grad:g})"

    # fmt: off
    def __add__(self, other: Any) -> Value: return _binary("add", self, other)
    def __radd__(self, other: Any) -> Value: return _binary("add", other, self)
    def __sub__(self, other: Any) -> Value: return _binary("sub", self, other)
    def __rsub__(self, other: Any) -> Value: return _binary("sub", other, self)
    def __mul__(self, other: Any) -> Value: return _binary("mul", self, other)
    def __rmul__(self, other: Any) -> Value: return _binary("mul", other, self)
    def __truediv__(self, other: Any) -> Value: return _binary("div", self, other)
    def __rtruediv__(self, other: Any) -> Value: return _binary("div", other, self)
    def __pow__(self, other: Any) -> Value: return _binary("pow", self, other)
    def __rpow__(self, other: Any) -> Value: return _binary("pow", other, self)
    def __neg__(self) -> Value: return Value.of("neg", self)
    def __pos__(self) -> Value: return self
    def __abs__(self) -> Value: return Value.of("abs", self)
    def __gt__(self, other: Any) -> Condition: return Condition(self, other)
    def __lt__(self, other: Any) -> Condition: return Condition(other, self)
    def __ge__(self, other: Any) -> Condition: return Condition(other, self, otherwise=True)
    def __le__(self, other: Any) -> Condition: return Condition(self, other, otherwise=True)
    # fmt: on

    def relu(self) -> Value:
        """max(x, 0)."""
        return Value.of("relu", self)

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, (Value, int, float)):
            return NotImplemented
        return self._number(_BRANCHES) == (other._number(_BRANCHES) if isinstance(other, Value) else other)

    def __bool__(self) -> bool:
        return bool(self._number(_BRANCHES))

    def __float__(self) -> float:
        return self._number(
            "makes a plain number of x, as math.exp(x) does; use the functions of gpubp.scalar"
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """NumPy's functions of numbers and Values, where gpubp.scalar has the same."""
        found = _UFUNCS.get(ufunc.__name__)
        if found is None or method != "__call__" or options or any(np.ndim(v) for v in inputs):
            raise InputError(
                f"calls numpy.{ufunc.__name__}, which cannot be traced; use the functions of gpubp.scalar"
            )
        return found(*inputs)


_BRANCHES = (
    "branches on the value of x (if, and, or, while, max, min), so that only one branch would be traced; use "
    "gpubp.scalar.where(x > 0, a, b), maximum, minimum or relu"
)


class Condition:
    """left > right, or with `otherwise` its contrary: what `where` takes. True or False only for numbers."""

    def __init__(self, left: Any, right: Any, *, otherwise: bool = False) -> None:
        self.left, self.right, self.otherwise = left, right, otherwise

    def __bool__(self) -> bool:
        left, right = (
            v._number(_BRANCHES) if isinstance(v, Value) else float(v) for v in (self.left, self.right)
        )
        return left <= right if self.otherwise else left > right


def _rule(op: str, operands: Sequence[Any]) -> Op:
    """The row of OPS. InputError where it takes another number of operands."""
    rule, got = OPS[op], len(operands)
    if got != rule.arity:
        raise InputError(
            f"calls {op} with {got} argument{'s' * (got != 1)}; write {op}({', '.join('abpq'[: rule.arity])})"
        )
    return rule


def _binary(op: str, a: Any, b: Any) -> Value:
    for v in (a, b):
        if not isinstance(v, (Value, int, float, np.integer, np.floating)):
            return NotImplemented  # type: ignore[no-any-return]
    return Value.of(op, a, b)


def history(*roots: Value) -> list[Value]:
    """Everything that these Values were made of, each after its parents; the last one is the last root."""
    order: list[Value] = []
    seen: set[int] = set()
    for root in roots:
        stack = [(root, False)]
        while stack:
            v, ready = stack.pop()
            if ready:
                order.append(v)
            elif id(v) not in seen:
                seen.add(id(v))
                stack += [(v, True), *((parent, False) for parent in reversed(v.parents))]
    return order


# ---- functions of numbers and of Values ------------------------------------------------------------------


def _function(op: str) -> Callable[..., Any]:
    def apply(*operands: Any) -> Any:
        if any(isinstance(v, Value) for v in operands):
            return Value.of(op, *operands)
        return _rule(op, operands).number(*operands)

    apply.__name__ = apply.__qualname__ = op
    apply.__doc__ = f"{op} of numbers or Values."
    return apply


exp: Callable[..., Any] = _function("exp")
expm1: Callable[..., Any] = _function("expm1")
log: Callable[..., Any] = _function("log")
log1p: Callable[..., Any] = _function("log1p")
sqrt: Callable[..., Any] = _function("sqrt")
tanh: Callable[..., Any] = _function("tanh")
sigmoid: Callable[..., Any] = _function("sigmoid")
softplus: Callable[..., Any] = _function("softplus")
tanh_softplus: Callable[..., Any] = _function("tanh_softplus")
d_tanh_softplus: Callable[..., Any] = _function("d_tanh_softplus")
erf: Callable[..., Any] = _function("erf")
sin: Callable[..., Any] = _function("sin")
cos: Callable[..., Any] = _function("cos")
relu: Callable[..., Any] = _function("relu")
maximum: Callable[..., Any] = _function("maximum")
minimum: Callable[..., Any] = _function("minimum")


def where(condition: Any, a: Any, b: Any) -> Any:
    """a where the condition holds, such as x > 0, else b; both are numbers or Values, and both are computed."""
    if not isinstance(condition, Condition):
        return a if condition else b
    if condition.otherwise:
        a, b = b, a
    return Value.of("where", condition.left, condition.right, a, b)


_UFUNCS: dict[str, Callable[..., Any]] = {
    **{f.__name__: f for f in (exp, expm1, log, log1p, sqrt, tanh, sin, cos, maximum, minimum)},
    **{
        name: _function(op)  # and not operator.mul, which would ask NumPy again where its scalar stands first
        for name, op in (
            ("add", "add"), ("subtract", "sub"), ("multiply", "mul"), ("divide", "div"), ("power", "pow"),
            ("float_power", "pow"), ("negative", "neg"), ("absolute", "abs"),
        )
    },
    "square": lambda x: x * x,
}  # fmt: skip
