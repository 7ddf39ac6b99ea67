"""Activations of one's own: refused where they cannot work, else the numbers of the built-in ones, in files too."""

import copy
import json
import math
import pickle
import random
import re

import numpy as np
import pytest

import gpubp
from gpubp.custom import activation_from_config
from gpubp.errors import ConfigError, InputError, StorageError
from gpubp.kernels.activations import ACTIVATIONS
from gpubp.scalar import (
    Value,
    cos,
    erf,
    exp,
    log,
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
from gpubp.storage import load_tensors, save_tensors


def lazy(x):
    return x * (1 + tanh(x / 2)) / 2


def branches(x):
    return x if x > 0 else 0.01 * x


def no_return(x):
    x * 2


def for_ever(x):
    return for_ever(x + 1)


_other = Value.symbol("x")


# what is wrong, the function, and what the one line says of it
BAD = {
    "if": (branches, r"branches on the value of x .*gpubp\.scalar\.where"),
    "max": (lambda x: max(x, 0), "branches on the value of x"),
    "and": (lambda x: x and 1.0, "branches on the value of x"),
    "equal": (lambda x: x if x == 0 else 2 * x, "branches on the value of x"),
    "between": (lambda x: where(-1 < x < 1, x, 0), "branches on the value of x"),
    "math": (lambda x: math.exp(x), r"makes a plain number of x.*gpubp\.scalar"),
    "numpy": (lambda x: np.arctan(x), r"calls numpy\.arctan, which cannot be traced"),
    "array": (lambda x: np.array([1.0, 2.0]) * x, r"numpy\.multiply, which cannot be traced"),
    "number": (lambda x: x * x.data, "reads the number that x stands for"),
    "index": (lambda x: x[0], "TypeError .*cannot be traced"),
    "recursion": (for_ever, "calls itself for ever"),
    "none": (no_return, r"to return a number; got None; end it with return"),
    "text": (lambda x: "x", "to return a number; got 'x'"),
    "tuple": (lambda x: (x, x), "to return a number"),
    "constant": (lambda x: 1.0, "a result that depends on x"),
    "another": (lambda x: _other * x, "symbols of this call only"),
    "random": (lambda x: x * random.random(), "the same expression each time"),
    "two": (lambda x, y: x, "a function of 1 scalar"),
    "no function": (3, "a function of 1 scalar"),
    "log": (log, "a number everywhere; got -inf for x = 0"),
    "root": (sqrt, "a number everywhere; got nan for x = -0.01"),
    "pole": (lambda x: 1 / x, "a number everywhere; got inf for x = 0"),
    "power": (lambda x: x**0.3, "a number everywhere; got nan"),
    "far out": (lambda x: exp(x) / (2 + exp(x)), "nan for x = .* in float.*let nothing overflow"),
    "slope": (lambda x: sqrt(abs(x)), "its derivative: expected a number everywhere; got nan for x = 0"),
    "large": (lambda x: x / 1e-39 * 1e39, "float32"),
    "two arguments": (lambda x: log(x, 2), r"it calls log with 2 arguments; write log\(a\)"),
    "one argument": (lambda x: maximum(x), r"it calls maximum with 1 argument; write maximum\(a, b\)"),
    "three arguments": (lambda x: minimum(x, 0, 6), "it calls minimum with 3 arguments"),
    "none inside": (lambda x: maximum(x, None), "it expected a number; got None"),
    "pole between": (lambda x: 1 / (x - 2.017), r"got inf for x = 2\.017 in float64; define it there"),
    "pole of a square": (lambda x: 1 / (x - 2.017) ** 2, r"got inf for x = 2\.017"),
    "pole far out": (lambda x: 1 / (x - 20.017), r"got inf for x = 20\.017 in float64; define it there"),
    "poles of tan": (lambda x: sin(x) / cos(x), r"got -?1\.6\d+e\+16 for x = -?1\.5708 in"),
    "gap": (lambda x: sqrt((x - 20) * (x - 30)), "got nan for x = 20 in float64; define it there"),
    "narrow gap": (lambda x: sqrt((x - 7.011) * (x - 7.012)), r"got nan for x = 7\.01"),
    "long": (lambda x: sum(tanh(x + k) for k in range(200)), "at most 300 operations"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_a_bad_function_is_refused_in_one_line(name):
    f, said = BAD[name]
    with pytest.raises(InputError, match=said) as caught:
        gpubp.activation(f, name="bad")
    assert str(caught.value).startswith("activation 'bad': ")
    assert "\n" not in str(caught.value)


def test_an_error_of_the_function_itself_is_told():
    with pytest.raises(InputError, match=r"ZeroDivisionError \(.*division.*\)"):
        gpubp.activation(lambda x: x * (1 // 0), name="bad")


def test_a_wrong_derivative_is_refused_with_both_numbers():
    said = r"derivative near (\S+) for x = (\S+), by central differences; got (\S+); correct d_f"
    with pytest.raises(InputError, match=said) as caught:
        gpubp.activation(tanh, d_f=lambda x: 1 - tanh(x), name="bad")
    near, x, got = map(float, re.search(said, str(caught.value)).groups())
    assert near == pytest.approx(1 - math.tanh(x) ** 2, rel=1e-4)
    assert got == pytest.approx(1 - math.tanh(x), rel=1e-4)
    for wrong in (lambda x: None, lambda x: 1 / (x - x), 3):
        with pytest.raises(InputError, match=r"^activation 'bad': "):
            gpubp.activation(tanh, d_f=wrong, name="bad")


def test_a_derivative_that_is_slightly_wrong_is_refused():
    with pytest.raises(InputError, match="derivative near"):
        gpubp.activation(tanh, d_f=lambda x: 1.00001 - tanh(x) ** 2, name="bad")


@pytest.mark.parametrize("limit", [10, 50])
def test_a_derivative_that_is_wrong_only_far_out_is_refused(limit):
    with pytest.raises(InputError, match="derivative near"):
        gpubp.activation(tanh, d_f=lambda x: where(abs(x) > limit, 1e-3, 1 - tanh(x) ** 2), name="bad")


@pytest.mark.parametrize(
    "f",
    [
        lambda x: sin(100 * x) / 100,
        lambda x: x * (x - sqrt(1 + x * x)),
        lambda x: x * x * x / 100 - x * x * sqrt(1 + x * x) / 100,
        lambda x: (x * x + 1) ** 2 - (x**4 + 2 * x * x),
    ],
)
def test_what_oscillates_or_cancels_far_out_is_taken(f):
    assert math.isfinite(gpubp.activation(f, name="mine")(1.0))


def test_names():
    assert gpubp.activation(lazy).name == "lazy"
    assert gpubp.activation(lambda x: 2 * x).name == "custom"
    assert gpubp.activation(lazy, name="lazier").name == "lazier"
    for wrong in ("", "a b", "x" * 41, "é", "1a", 3):
        with pytest.raises(ConfigError, match="letters, digits and underscores"):
            gpubp.activation(lazy, name=wrong)
    with pytest.raises(ConfigError, match=r"no built-in one has.*my_tanh"):
        gpubp.activation(tanh)


def test_what_was_not_made_by_activation_is_refused():
    for call in (
        lambda: gpubp.Network([2, 3, 1], activation=lazy),
        lambda: gpubp.Network([2, 3, 1], output=lazy),
        lambda: gpubp.Dense(2, 3, lazy),
    ):
        with pytest.raises(ConfigError, match=r"got <function lazy .*use gpubp\.activation\(f\)"):
            call()


# ---- the same as built-in ones -------------------------------------------------------------------------------

PAIRS = {
    "tanh": lambda x: tanh(x),
    "leaky_relu": lambda x: maximum(x, 0.01 * x),
    "silu": lambda x: x / (1 + exp(-x)),
    "gelu": lambda x: x * (1 + erf(x / 2**0.5)) / 2,
    "mish": lambda x: x * tanh(softplus(x)),
    "hard_swish": lambda x: x * minimum(maximum(x + 3, 0), 6) / 6,
}


def launches(trainer):
    """The names of what a step launches."""
    (step,) = trainer._steps.values()
    return [cost.name for cost in step.recording.costs()]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("tanh", "float32"), ("leaky_relu", "float64"), ("silu", "float32"), ("gelu", "float32"), ("mish", "float64"),
        ("hard_swish", "float32"),
    ],
)  # fmt: skip
def test_a_step_is_that_of_the_built_in_one(name, dtype):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((32, 6)), rng.standard_normal((32, 2))
    trainers = [
        gpubp.Trainer(gpubp.Network([6, 8, 8, 2], activation=g, dtype=dtype, seed=0), "mse", "sgd", seed=0)
        for g in (name, gpubp.activation(PAIRS[name], name=f"my_{name}"))
    ]
    for _ in range(3):
        losses = [float(trainer.step(x, y)) for trainer in trainers]
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    assert losses[1] == pytest.approx(losses[0], rel=tolerance)
    assert abs(trainers[0].net.flat - trainers[1].net.flat).max() < tolerance
    rows = [launches(trainer) for trainer in trainers]
    assert [row.replace(f"my_{name}", name) for row in rows[1]] == rows[0]  # launch by launch


def test_initial_weights_are_those_of_its_kin():
    for f, initial in (
        (relu, "he_normal"),
        (PAIRS["silu"], "he_normal"),
        (sigmoid, "glorot_uniform"),
        (tanh, "glorot_uniform"),
    ):
        assert gpubp.activation(f, name="mine").initial == initial
    mine, built_in = (
        gpubp.Network([4, 5, 1], g, seed=3) for g in (gpubp.activation(PAIRS["silu"], name="mine"), "silu")
    )
    np.testing.assert_array_equal(mine.flat, built_in.flat)


def test_gradcheck_passes_through_layers_dropout_and_output():
    net = gpubp.Network(
        [gpubp.Dense(3, 5, g := gpubp.activation(lazy)), gpubp.Dropout(0.3), gpubp.Dense(5, 2, g)],
        dtype="float64",
        seed=0,
    )
    rng = np.random.default_rng(1)
    result = gpubp.gradcheck(
        net, rng.standard_normal((7, 3)), rng.standard_normal((7, 2)), loss="mse", masks=5
    )
    assert result.passed


def test_a_given_derivative_is_taken():
    steep = gpubp.activation(
        relu, d_f=lambda x: where(x >= 0, 1.0, 0.0), name="steep"
    )  # 1 at 0, where relu has 0
    assert float(steep.d_f(np.float64(0.0))) == 1.0
    assert steep.d_f_of_output is None  # a = 0 for every x below 0 too
    given = gpubp.activation(tanh, d_f=lambda x: 1 - tanh(x) ** 2, name="given")
    assert given.formulas == ("tanh(x)", "1 - a * a")


def test_an_activation_can_be_part_of_another():
    inner = gpubp.activation(lazy)
    outer = gpubp.activation(lambda x: inner(x) + 0.1 * x, name="outer")
    assert inner(0.5) == pytest.approx(0.5 / (1 + math.exp(-0.5)))
    assert outer(0.5) == pytest.approx(inner(0.5) + 0.05)


def test_not_a_number_goes_through():
    for f in (relu, lazy, PAIRS["leaky_relu"], lambda x: where(x > 0, x, 0), lambda x: where(x <= 1, 1, x)):
        g = gpubp.activation(f, name="mine")
        assert math.isnan(g.f(np.float32(np.nan)))
        assert type(g.f(np.float32(1.5))) is type(g.d_f(np.float32(1.5))) is np.float32


# ---- files ---------------------------------------------------------------------------------------------------


def test_a_checkpoint_needs_no_code_of_the_user(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((32, 6)), rng.standard_normal((32, 2))
    g = gpubp.activation(PAIRS["silu"], name="my_silu")
    trainer = gpubp.Trainer(gpubp.Network([6, 8, 8, 2], g, seed=0), "mse", "sgd", seed=0)
    trainer.step(x, y)
    trainer.save(tmp_path / "a.safetensors")
    assert b"lambda" not in (tmp_path / "a.safetensors").read_bytes()
    again = gpubp.Trainer.load(tmp_path / "a.safetensors")
    assert again.net.layers[0].activation == g
    np.testing.assert_array_equal(again.net.forward(x), trainer.net.forward(x))
    assert float(again.step(x, y)) == float(trainer.step(x, y))
    np.testing.assert_array_equal(again.net.flat, trainer.net.flat)


def test_a_changed_file_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    trainer = gpubp.Trainer(gpubp.Network([2, 3, 1], gpubp.activation(lazy), seed=0), "mse")
    trainer.save(path)
    tensors, metadata = load_tensors(path)
    good = metadata["config"]
    for before, after in (("tanh", "evil"), ('"d_f"', '"d_g"'), ('["constant", 0.5]', '["constant", 0.6]')):
        assert before in good
        save_tensors(path, tensors, metadata | {"config": good.replace(before, after)})
        with pytest.raises(
            (StorageError, ConfigError), match=r"a\.safetensors: config\.network\.layers\[0\]: "
        ):
            gpubp.Trainer.load(path)


def test_copies_and_pickles_are_equal():
    g = gpubp.activation(lazy)
    assert activation_from_config(json.loads(json.dumps(g.config()))) == g
    assert pickle.loads(pickle.dumps(g)) == g
    assert copy.deepcopy(g) is g
    assert g == gpubp.activation(lazy)
    assert g != gpubp.activation(lambda x: x * (1 + tanh(x / 2)) / 2.5, name="lazy")
    assert hash(g) == hash(gpubp.activation(lazy))
    net = gpubp.Network([2, 3, 1], g, seed=0)
    assert pickle.loads(pickle.dumps(net)).layers[0].activation == g
    assert repr(g) == "activation('lazy': x * (1 + tanh(x / 2)) / 2)"


def test_built_in_names_stay_as_they_are_in_files():
    assert all(g.config() == name for name, g in ACTIVATIONS.items())
