"""Expressions: traced, simplified, differentiated, stored; each the same numbers as the function that it came from."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpubp.errors import InputError
from gpubp.scalar import (
    OPS,
    Simplifier,
    Value,
    cos,
    crossings,
    derivative,
    derivative_of_output,
    erf,
    evaluate,
    exp,
    expm1,
    formula,
    from_tree,
    history,
    log,
    log1p,
    maximum,
    minimum,
    probes,
    relu,
    sigmoid,
    sin,
    softplus,
    sqrt,
    tanh,
    to_tree,
    trace,
    where,
)

# f, the form that it is simplified to, f', and f' of a = f(x)
FORMS = {
    "tanh": (tanh, "tanh(x)", "1 - tanh(x) * tanh(x)", "1 - a * a"),
    "sigmoid": (lambda x: 1 / (1 + exp(-x)), "sigmoid(x)", "sigmoid(x) * (1 - sigmoid(x))", "a * (1 - a)"),
    "sigmoid, twice": (lambda x: exp(x) / (exp(x) + 1), "sigmoid(x)", None, "a * (1 - a)"),
    "tanh of exp": (lambda x: (exp(x) - exp(-x)) / (exp(x) + exp(-x)), "tanh(x)", None, "1 - a * a"),
    "softplus": (lambda x: log(1 + exp(x)), "softplus(x)", "sigmoid(x)", "-expm1(-a)"),
    "relu": (relu, "where(x > 0, x, 0)", "where(x > 0, 1, 0)", "where(a > 0, 1, 0)"),
    "leaky_relu": (lambda x: maximum(x, 0.01 * x), "where(x > 0, x, 0.01 * x)", None, "where(a > 0, 1, 0.01)"),
    "elu": (lambda x: where(x > 0, x, exp(x) - 1), "where(x > 0, x, expm1(x))", None, "where(a > 0, 1, 1 + a)"),
    "selu": (
        lambda x: 2 * where(x > 0, x, 1.5 * (exp(x) - 1)),
        "where(x > 0, 2 * x, 3 * expm1(x))",
        "where(x > 0, 2, 3 + 3 * expm1(x))",
        "where(a > 0, 2, 3 + a)",
    ),
    "hard_tanh": (lambda x: maximum(minimum(x, 1), -1), None, None, "where(a > -1, where(1 > a, 1, 0), 0)"),
    "hard_sigmoid": (
        lambda x: minimum(maximum(x / 4 + 0.5, 0), 1), None, None, "where(1 > a, where(a > 0, 0.25, 0), 0)"
    ),
    "shifted": (lambda x: relu(x - 1) - 2, None, None, "where(a > -2, 1, 0)"),
    "scaled": (lambda x: 2 * tanh(x / 2), "2 * tanh(x / 2)", "1 - tanh(x / 2) * tanh(x / 2)", "1 - a * a / 4"),
    "exp": (exp, "exp(x)", "exp(x)", "a"),
    "line": (lambda x: 3 - (2 * x + x) / 2, "3 - 1.5 * x", "-1.5", "-1.5"),
    "silu": (lambda x: x / (1 + exp(-x)), "x * sigmoid(x)", "sigmoid(x) + x * sigmoid(x) * (1 - sigmoid(x))", None),
    "square": (lambda x: x**2, "x * x", "2 * x", None),
    "cube": (lambda x: x**3, "x * x * x", None, None),
    # Where f is flat, a is what was computed: only a constant is the limit of the condition to the last bit.
    "flat, computed": (lambda x: exp(maximum(x, 3.3)), None, None, None),
    # Above 0, where a rounds to its value at 0, a condition on a would be wrong.
    "offset": (lambda x: 0.7 * (relu(x) + 0.1) / 0.5 + 0.01, "where(x > 0, 0.15 + 1.4 * x, 0.15)", None, None),
    "hard_swish": (
        lambda x: x * minimum(maximum(x + 3, 0), 6) / 6, None,
        "where(6 > where(3 + x > 0, 3 + x, 0), where(3 + x > 0, 0.5 + 0.333333 * x, 0), 1)", None
    ),
    "absolute": (abs, "abs(x)", "where(x > 0, 1, where(0 > x, -1, 0))", None),
    "mirrored": (lambda x: relu(-x), None, None, "where(a > 0, -1, 0)"),
    "falling": (lambda x: where(x > 0, -x, 0), None, "where(x > 0, -1, 0)", None),
    "root": (lambda x: x * (1 + x * x) ** -0.5, "x / sqrt(1 + x * x)", None, None),
    "snake": (lambda x: x + sin(x) ** 2, "x + sin(x) * sin(x)", "1 + 2 * sin(x) * cos(x)", None),
    "gelu": (lambda x: x * (1 + erf(x / 2**0.5)) / 2, None, None, None),
    "mish": (
        lambda x: x * tanh(log(1 + exp(x))), "x * tanh(softplus(x))",
        "tanh(softplus(x)) + x * (1 - tanh(softplus(x)) ** 2) * sigmoid(x)", None
    ),
    # In float32 a takes a dozen numbers, which say too little of f'.
    "offset, float32": (lambda x: 1 + 1e-6 * tanh(x), "1 + 1e-06 * tanh(x)", None, None),
}  # fmt: skip


def traced(f):
    """f, f' and f' of the output."""
    make = Simplifier()
    y, x = make(trace(f, ["x"], "f")), make(Value.symbol("x"))
    slope = derivative(y, x, make)
    return y, slope, derivative_of_output(y, x, slope, make)


@pytest.mark.parametrize("name", list(FORMS))
def test_forms(name):
    """None stands for a form that is not spelt out, and for an output that does not determine f'."""
    f, *expected = FORMS[name]
    *found, of_output = traced(f)
    for root, text in zip(found, expected[:2], strict=True):
        assert text in (None, formula(root))
    assert (None if of_output is None else formula(of_output)) == expected[2]


@pytest.mark.parametrize("name", list(FORMS))
def test_the_simplified_function_and_its_derivative_are_those_of_the_original(name):
    f = FORMS[name][0]
    y, slope, of_output = traced(f)
    for number in np.concatenate([np.linspace(-6, 6, 61) + 0.0123, [-30.0, 30.0]]):
        x = Value(number)
        original = f(x)
        original.backward()
        got = [float(evaluate(root, {"x": number})) for root in (y, slope)]
        assert got == pytest.approx([original.data, x.grad], rel=1e-9, abs=1e-9)
        if of_output is not None:
            assert float(evaluate(of_output, {"a": original.data})) == pytest.approx(
                x.grad, rel=1e-9, abs=1e-9
            )


def expressions():
    """Functions of x, as nested operations that are defined everywhere."""
    leaf = st.sampled_from([lambda x: x]) | st.floats(-2, 2).map(lambda c: lambda x: x * 0 + round(c, 2))

    def of_one(inner):
        kind = st.sampled_from(
            [tanh, sigmoid, softplus, sin, cos, erf, relu, abs, lambda v: -v, lambda v: v**2]
        )
        return st.tuples(kind, inner).map(lambda t: lambda x: t[0](t[1](x)))

    def of_two(inner):
        kinds = [
            lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b, lambda a, b: a / (1 + b * b), maximum, minimum,
            lambda a, b: where(a > b, a, 2 * b), lambda a, b: where(a <= 0.5, a, b), lambda a, b: 0.5 * a - 2 * b,
        ]  # fmt: skip
        return st.tuples(st.sampled_from(kinds), inner, inner).map(lambda t: lambda x: t[0](t[1](x), t[2](x)))

    return st.recursive(leaf, lambda inner: of_one(inner) | of_two(inner), max_leaves=8)


@settings(max_examples=40)
@given(f=expressions(), number=st.floats(-3, 3))
def test_any_expression_is_simplified_and_differentiated_rightly(f, number):
    original = trace(f, ["x"], "f", constant=True)
    make = Simplifier()
    y, x = make(original), make(Value.symbol("x"))
    at = Value(number)
    result = f(at)
    if not isinstance(result, Value):
        return
    result.backward()
    assert float(evaluate(y, {"x": number})) == pytest.approx(result.data, rel=1e-9, abs=1e-9)
    # At a kink of an inner function each form may take another side: elsewhere both are the derivative.
    sides = [Value(number + step) for step in (-1e-7, 1e-7)]
    for side in sides:
        f(side).backward()
    if abs(sides[0].grad - sides[1].grad) < 1e-4 * (1 + abs(at.grad)):
        got = float(evaluate(derivative(y, x, make), {"x": number}))
        assert got == pytest.approx(at.grad, rel=1e-6, abs=1e-4 * (1 + abs(at.grad)))


def test_equal_parts_are_one_object():
    y = Simplifier()(trace(lambda x: tanh(2 * x) + tanh(x * 2) * tanh(x + x), ["x"], "f"))
    assert [v.op for v in history(y)].count("tanh") == 1


def test_a_branch_that_is_no_number_does_not_spoil_the_other():
    y, slope, _ = traced(lambda x: where(x > 0, log(maximum(x, 1e-30)) * x, 0 * x))
    assert np.isfinite(evaluate(slope, {"x": probes([])})).all()
    assert np.isfinite(evaluate(y, {"x": probes([])})).all()


# ---- stored ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(FORMS))
def test_a_tree_survives_json(name):
    for root in traced(FORMS[name][0])[:2]:
        tree = to_tree(root, "f")
        again = from_tree(json.loads(json.dumps(tree)), ["x"])
        assert to_tree(again, "f") == tree
        points = np.linspace(-3, 3, 13)
        np.testing.assert_array_equal(evaluate(again, {"x": points}), evaluate(root, {"x": points}))


@pytest.mark.parametrize(
    "tree",
    [
        [], None, "x", {"op": "x"}, [["symbol", "q"]], [["symbol"]], [["symbol", "x", 1]], [["symbol", ["x"]]], [[]],
        [["constant", "1"]], [["constant", True]], [["constant", 1e39]], [["constant", float("nan")]], [["constant"]],
        [["symbol", "x"], ["exp", 1]], [["symbol", "x"], ["exp", -1]], [["symbol", "x"], ["exp", 0.0]],
        [["symbol", "x"], ["exp", True]], [["symbol", "x"], ["exp"]], [["symbol", "x"], ["add", 0]],
        [["symbol", "x"], ["__import__", 0]], [["symbol", "x"], [["exp"], 0]], [["symbol", "x"], "exp"],
        [["symbol", "x"]] * 301,
    ],
)  # fmt: skip
def test_a_damaged_tree_is_refused(tree):
    with pytest.raises(InputError, match=r"^expression: expected .*; got "):
        from_tree(tree, ["x"])


def test_too_long_and_too_large_expressions_are_refused():
    def long(x):
        for k in range(400):
            x = sin(x) + k
        return x

    with pytest.raises(InputError, match="at most 300 operations"):
        to_tree(Simplifier()(trace(long, ["x"], "f")), "f")
    with pytest.raises(InputError, match="constants that float32 holds; got 1e\\+39"):
        to_tree(trace(lambda x: 1e39 * x, ["x"], "f"), "f")


def test_every_operation_is_stored_and_evaluated():
    for op, rule in OPS.items():
        operands = rule.arity
        tree = [["symbol", "x"], ["constant", 2.0], [op, *([0, 1, 1, 0][:operands])]]
        assert to_tree(from_tree(tree, ["x"]), "f")[-1][0] == op
        number = float(evaluate(from_tree(tree, ["x"]), {"x": 0.75}))
        assert number == pytest.approx(Value.of(op, *[0.75, 2.0, 2.0, 0.75][:operands]).data)


def test_formulas_are_what_would_be_typed():
    for f in (
        lambda x: (x + 1) * (x - 2) / (3 - x),
        lambda x: -((x * x) ** 1.5),
        lambda x: (-x) ** 2.5 - (1 - (2 - x)),
        lambda x: sqrt(1 + x * x) * expm1(-x / 2),
        lambda x: 2 / (x / (1 + x * x)),
    ):
        root = trace(f, ["x"], "f")
        text = formula(root)
        again = eval(text, {"sqrt": np.sqrt, "expm1": np.expm1, "x": np.float64(-0.7)})
        assert again == pytest.approx(float(evaluate(root, {"x": -0.7}))), text


# ---- where something may happen ------------------------------------------------------------------------------


def test_crossings_are_the_neighbours_of_poles_roots_and_choices():
    def found(f):
        return crossings([trace(f, ["x"], "f")], probes([]))

    for f, places in (
        (lambda x: 1 / (x - 2.017), [2.017]),
        (lambda x: 1 / (x - 2.017) ** 2, [2.017]),
        (lambda x: x / ((x - 2.017) * abs(x + 70.3)), [-70.3, 2.017]),
        (lambda x: sqrt(-x - 3.3) * log(x + 1.1) - log1p(x / 9), [-9, -3.3, -1.1]),
        (lambda x: where(x * x > 2, x, 0), [-(2**0.5), 2**0.5]),
        (lambda x: tanh(x) / 2 + x * x, []),
    ):
        low, high = found(f)[::2], found(f)[1::2]
        np.testing.assert_allclose(low, places, rtol=1e-15)
        np.testing.assert_array_equal(np.nextafter(low, np.inf), high)


def test_a_value_of_another_number_of_operands_is_refused():
    with pytest.raises(InputError, match=r"^calls pow with 3 arguments; write pow\(a, b\)$"):
        Value.of("pow", Value(1.0), 2.0, 3.0)
    with pytest.raises(InputError, match="calls log with 2 arguments"):
        log(1.0, 2.0)
