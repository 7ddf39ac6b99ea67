"""Value against the worked examples of scalar graphs and central differences; its pictures."""

import json
import math
import random
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpubp import scalar
from gpubp.errors import InputError
from gpubp.scalar import OPS, Value, maximum, sigmoid, where

GOLDEN = Path(__file__).parents[1] / "golden" / "worked_examples.json"
CASES = {case["id"]: case for case in json.loads(GOLDEN.read_text("utf-8"))["cases"]}


def values(case):
    return {name: Value(number, name) for name, number in CASES[case]["inputs"].items()}


def compare(case, y, inputs, name):
    """The result and its gradient by every input, as the case has them."""
    y.backward()
    got = {name: y.data} | {f"d{key}": v.grad for key, v in inputs.items()}
    expected = {key: CASES[case]["expected"][key] for key in got}
    assert got == pytest.approx(expected, rel=0, abs=CASES[case]["tolerance"]["atol"])
    published = CASES[case].get("published", {})
    for key in set(got) & set(published):
        assert round(got[key], published["decimals"]) == published[key]


def test_circuit():
    v = values("cs231n_circuit_xyz")
    q = v["x"] + v["y"]
    compare("cs231n_circuit_xyz", q * v["z"], v, "f")
    assert q.data == CASES["cs231n_circuit_xyz"]["expected"]["q"]


def test_max_gate():
    v = values("cs231n_max_gate")
    compare("cs231n_max_gate", 2 * (v["x"] * v["y"] + maximum(v["z"], v["w"])), v, "f")


def test_micrograd_sanity_check():
    v = values("micrograd_sanity_check")
    x = v["x"]
    z = 2 * x + 2 + x
    q = z.relu() + z * x
    h = (z * z).relu()
    compare("micrograd_sanity_check", h + q + q * x, v, "y")


def test_micrograd_more_ops():
    v = values("micrograd_more_ops")
    a, b = v["a"], v["b"]
    c, d = a + b, a * b + b**3
    c += c + 1
    c += 1 + c + (-a)
    d += d * 2 + (b + a).relu()
    d += 3 * d + (b - a).relu()
    f = (c - d) ** 2
    compare("micrograd_more_ops", f / 2.0 + 10.0 / f, v, "g")


def test_micrograd_trace():
    expected = CASES["micrograd_trace"]["expected"]
    x = Value(1.0, "x")
    y = (x * 2 + 1).relu()
    y.backward()
    assert (y.data, x.grad) == (expected["y"], expected["dx"])
    rng = random.Random(1337)
    w, inputs = [Value(rng.uniform(-1, 1)) for _ in range(2)], [Value(1.0), Value(-2.0)]
    neuron = (w[0] * inputs[0] + w[1] * inputs[1]).relu()
    neuron.backward()
    got = [neuron.data, [v.data for v in w], [v.grad for v in w], [v.grad for v in inputs]]
    for mine, key in zip(got, ("neuron", "w", "dw", "dxn"), strict=True):
        assert mine == pytest.approx(expected[key], rel=0, abs=1e-15)
    published = CASES["micrograd_trace"]["published"]
    assert round(neuron.data, 4) == published["neuron"]


def test_sigmoid_neuron():
    case = CASES["cs231n_sigmoid_neuron"]
    w, x = [Value(v) for v in case["inputs"]["w"]], [Value(v) for v in case["inputs"]["x"]]
    f = sigmoid(w[0] * x[0] + w[1] * x[1] + w[2])
    f.backward()
    assert f.data == pytest.approx(case["expected"]["f"], abs=1e-12)
    assert [v.grad for v in w] == pytest.approx(case["expected"]["dw"], abs=1e-12)
    assert [v.grad for v in x] == pytest.approx(case["expected"]["dx"], abs=1e-12)


# where each function of one number has a derivative, and a number
DOMAINS = {"log": (0.1, 4), "log1p": (-0.8, 3), "sqrt": (0.1, 4), "pow": (0.2, 3)}


@pytest.mark.parametrize("op", list(OPS))
@settings(max_examples=20)
@given(data=st.data())
def test_every_slope_is_a_central_difference(op, data):
    operands = OPS[op].arity
    low, high = DOMAINS.get(op, (-3, 3))
    numbers = [data.draw(st.floats(low, high, allow_subnormal=False)) for _ in range(operands)]
    near_kink = min(abs(numbers[0]), *(abs(numbers[0] - v) for v in numbers[1:2]), 1.0) < 1e-3
    if (op in ("abs", "relu", "maximum", "minimum", "where") and near_kink) or (
        op == "div" and abs(numbers[1]) < 0.1
    ):
        return
    v = [Value(number) for number in numbers]
    Value.of(op, *v).backward()
    for k in range(operands):

        def moved(step, k=k):
            return Value.of(op, *(n + step * (i == k) for i, n in enumerate(numbers))).data

        numeric = (moved(1e-5) - moved(-1e-5)) / 2e-5
        assert v[k].grad == pytest.approx(numeric, rel=1e-6, abs=1e-6)


def test_every_function_is_pytorchs():
    torch = pytest.importorskip("torch")
    theirs = {"sigmoid": torch.sigmoid, "softplus": torch.nn.functional.softplus, "relu": torch.relu}
    for name in ("exp", "expm1", "tanh", "sigmoid", "softplus", "erf", "sin", "cos", "relu"):
        for number in (-2.5, -0.3, 0.0, 0.7, 3.1):
            mine, other = Value(number), torch.tensor(number, dtype=torch.float64, requires_grad=True)
            y = getattr(scalar, name)(mine)
            y.backward()
            z = theirs.get(name, getattr(torch, name, None))(other)
            z.backward()
            assert (y.data, mine.grad) == pytest.approx(
                (z.item(), other.grad.item()), rel=1e-12, abs=1e-15
            ), name


def test_a_value_that_is_used_twice_adds_up_its_gradients():
    x = Value(3.0)
    y = x * x + x
    y.backward()
    y.backward()  # sets, and does not add to the last one's
    assert x.grad == 7.0


def test_deep_graphs_need_no_recursion():
    x = y = Value(1.0)
    for _ in range(20_000):
        y = y + 1.0
    y.backward()
    assert (y.data, x.grad) == (20_001.0, 1.0)


def test_comparisons_choose_and_branch_on_numbers():
    x = Value(2.0)
    assert [bool(c) for c in (x > 1, x >= 2, x < 2, x <= 2, x == 2, x != 3, x)] == [1, 1, 0, 1, 1, 1, 1]
    for condition, expected in ((x > 2, 0), (x >= 2, 1), (x < 2, 0), (x <= 2, 1), (x < 3, 1)):
        assert where(condition, Value(1.0), 0.0).data == expected
    assert where(True, 1.0, 0.0) == 1.0
    assert float(x) == 2.0


def test_numpys_functions_take_values():
    x = Value(0.5)
    for name in (
        "exp",
        "log",
        "log1p",
        "expm1",
        "tanh",
        "sqrt",
        "sin",
        "cos",
        "square",
        "negative",
        "absolute",
    ):
        assert getattr(np, name)(x).data == pytest.approx(float(getattr(np, name)(0.5)))
    assert np.maximum(x, 1.0).data == 1.0
    assert (np.float64(2.0) * x + np.float64(1) - np.int64(1)).data == (x * np.float32(2.0)).data == 1.0
    with pytest.raises(InputError, match=r"numpy\.arctan, which cannot be traced"):
        np.arctan(x)


def test_what_is_no_number_is_refused():
    for wrong in ("a", None, [1.0]):
        with pytest.raises(InputError, match="expected a number"):
            Value(wrong)
    with pytest.raises(TypeError):
        Value(1.0) + "a"


def test_numbers_out_of_range_are_ieees():
    assert math.isinf((1 / Value(0.0)).data)
    assert math.isnan(scalar.log(Value(-1.0)).data)
    assert scalar.exp(Value(1000.0)).data == math.inf


def graph():
    x, y = Value(-2.0, "x"), Value(5.0, "y")
    f = scalar.tanh(x * y + 3) * (x - 1) ** 2 / -y
    f.backward()
    return f, x


def test_the_graph_as_text():
    f, x = graph()
    lines = f.text().splitlines()
    assert lines[0].split() == ["x", "=", "-2", "grad", f"{x.grad:.6g}"]
    assert lines[2].split()[:6] == ["v1", "=", "x", "*", "y", "="]
    assert lines[-1].split()[-3:] == [f"{f.data:.6g}", "grad", "1"]
    assert len(lines) == 10  # x, y, and eight operations; constants stand inside them


def test_the_graph_as_a_picture():
    f, x = graph()
    root = ElementTree.fromstring(f.svg())
    width, height = float(root.get("width")), float(root.get("height"))
    kind = "{http://www.w3.org/2000/svg}"
    boxes, lines, texts = (list(root.iter(kind + name)) for name in ("rect", "path", "text"))
    assert len(boxes) == len(scalar.history(f))
    assert len(lines) == sum(len(v.parents) for v in scalar.history(f))
    assert any(f"grad {x.grad:.6g}" in text.text for text in texts)
    places = {(float(box.get("x")), float(box.get("y"))) for box in boxes}
    assert len(places) == len(boxes)
    for box in boxes:
        assert 0 <= float(box.get("x")) <= width - float(box.get("width"))
        assert 0 <= float(box.get("y")) <= height - float(box.get("height"))
