"""Dense: shapes, its forward and backward equations, configuration, and what its arguments must be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import ACTIVATION

import gpubp
from gpubp.backend import get_backend
from gpubp.errors import ConfigError, InputError
from gpubp.kernels.activations import activation
from gpubp.layers import Dense, Layer, from_config
from gpubp.network import Network

widths = st.integers(1, 20)


def bound(n_in, n_out, activation, *, bias=True, seed=0):
    """A layer with random parameters of its own, and their gradients."""
    layer, rng = Dense(n_in, n_out, activation, bias=bias), np.random.default_rng(seed)
    parameters = {name: rng.standard_normal(shape) for name, shape in layer.shapes().items()}
    gradients = {name: np.full(shape, np.nan) for name, shape in layer.shapes().items()}
    layer.bind(get_backend("cpu"), parameters, gradients, parameters)
    return layer


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", ["identity", "tanh", "gelu"])
@given(batch=st.integers(0, 40), n_in=widths, n_out=widths, n_above=widths, seed=st.integers(0, 999))
def test_the_four_equations(name, bias, batch, n_in, n_out, n_above, seed):
    ops, layer = get_backend("cpu"), bound(n_in, n_out, name, bias=bias, seed=seed)
    above = bound(n_out, n_above, "identity", bias=bias, seed=seed + 1)
    f, d_f = ACTIVATION[name]
    rng = np.random.default_rng(seed)
    x, delta_above = rng.standard_normal((batch, n_in)), rng.standard_normal((batch, n_above))
    z = x @ layer.W + (layer.b if bias else 0)
    a, saved = layer.forward(ops, x, keep=True)
    np.testing.assert_allclose(a, f(z), rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(layer.forward(ops, x, keep=False)[0], a)
    delta = layer.delta(ops, above, delta_above, saved)
    layer.gradient(ops, x, delta)
    np.testing.assert_allclose(delta, delta_above @ above.W.T * d_f(z), rtol=1e-9, atol=1e-10)  # BP2
    np.testing.assert_allclose(layer.db, delta.sum(axis=0), rtol=1e-9, atol=1e-10)  # BP3
    np.testing.assert_allclose(layer.dW, x.T @ delta, rtol=1e-9, atol=1e-10)  # BP4
    np.testing.assert_allclose(layer.dx(ops, delta), delta @ layer.W.T, rtol=1e-9, atol=1e-10)


def test_without_a_bias_nothing_is_added():
    layer = bound(2, 3, "sigmoid", bias=False)
    assert layer.shapes() == {"W": (2, 3)}
    a, _ = layer.forward(get_backend("cpu"), np.zeros((1, 2)), keep=False)
    np.testing.assert_array_equal(a, 0.5)  # only the pre-activation is bound to the origin


def test_a_network_binds_copies():
    layer = Dense(2, 3, "tanh")
    nets = [gpubp.Network([layer, Dense(3, 1)], seed=seed) for seed in (0, 1)]
    assert layer.W is None
    assert not np.array_equal(nets[0].parameters()["0.W"], nets[1].parameters()["0.W"])


@pytest.mark.parametrize("layer", [Dense(2, 3), Dense(4, 1, "gelu", bias=False, initial="he_uniform")])
def test_config_round_trip(layer):
    again = from_config(layer.config())
    assert again.config() == layer.config()
    assert repr(again) == repr(layer)


def test_repr():
    assert repr(Dense(784, 10, "relu", bias=False)) == "Dense(784, 10, 'relu', bias=False)"


@pytest.mark.parametrize("width", [0, -1, 1.5, "4", None, True, np.float64(3), [3]])
def test_widths_are_positive_integers(width):
    for arguments in ((width, 3), (3, width)):
        with pytest.raises(
            InputError, match=r"n_(in|out): expected an integer of at least 1; got .*needs a unit"
        ):
            Dense(*arguments)


def test_numpy_integers_are_widths():
    assert Dense(np.int32(3), np.uint8(2)).shapes() == {"W": (3, 2), "b": (2,)}


@pytest.mark.parametrize(
    ("wrong", "near"), [("Relu", "relu"), ("gelutanh", "gelu_tanh"), ("sigmiod", "sigmoid")]
)
def test_an_unknown_activation_gets_the_nearest(wrong, near):
    with pytest.raises(
        ConfigError, match=f"unknown activation: expected one of .*; got '{wrong}'; did you mean '{near}'"
    ):
        Dense(2, 3, wrong)


@pytest.mark.parametrize("activation", [None, 3, ["relu"], np.tanh])
def test_an_activation_that_is_no_name(activation):
    with pytest.raises(ConfigError, match="unknown activation"):
        Dense(2, 3, activation)


def test_an_unknown_initializer_gets_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'he_normal'"):
        gpubp.Network([Dense(2, 3, initial="he_norml")])


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"layer": "dropout"},
        {"layer": "dense"},
        {"layer": "dense", "n_in": 2},
        {"layer": "dense", "n_in": 2, "n_out": 2, "colour": "red"},
    ],
)
def test_a_config_of_something_else(config):
    with pytest.raises(ConfigError, match="layer: expected"):
        from_config(config)


class Twice(Layer):
    """a = 2 x: a layer without parameters, written in the operations that every backend has."""

    def __init__(self, n):
        self.n_in = self.n_out = n
        self.activation = activation("identity")

    def shapes(self):
        return {}

    def initials(self):
        return {}

    def bind(self, ops, parameters, gradients, stored):
        self.rows = ops.to_device(2 * np.eye(self.n_in))
        self.db = ops.empty((self.n_in,), np.float64)

    def gradients(self):
        return {}

    def forward(self, ops, x, *, keep, drop=None):
        return ops.matmul(x, self.rows), None

    def delta(self, ops, above, delta, saved, *, drop=None):
        return ops.matmul(above.upstream(ops, delta), self.rows)

    def gradient(self, ops, x, delta):
        pass

    def upstream(self, ops, delta):
        return delta

    def kept(self, *, dropped):
        return 2 * self.n_out

    def described(self):
        return "twice"

    def config(self):
        return {"layer": "twice", "n": self.n_in}


@pytest.mark.parametrize("places", [(0,), (1,), (0, 1, 1, 2)])
def test_another_layer_stands_anywhere_but_last(places):
    """Doubling what a Dense layer takes is doubling its W."""
    dense = [Dense(4, 5, "tanh"), Dense(5, 3, "gelu"), Dense(3, 2)]
    layers = [layer for k, one in enumerate(dense) for layer in [*[Twice(one.n_in)] * places.count(k), one]]
    net, plain = Network(layers, dtype="float64", seed=0), Network(dense, dtype="float64", seed=0)
    at = [k for k, layer in enumerate(net.layers) if isinstance(layer, Dense)]
    factor = [2.0 ** places.count(k) for k in range(3)]
    for k in range(3):
        plain.parameters()[f"{k}.W"][...] *= factor[k]
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((7, 4)), rng.standard_normal((7, 2))
    np.testing.assert_allclose(net.forward(x), plain.forward(x), rtol=1e-12)
    (value, found), (expected_value, expected) = (one.gradients(x, y, "mse") for one in (net, plain))
    assert value == pytest.approx(expected_value, rel=1e-12)
    np.testing.assert_allclose(found["x"], expected["x"], rtol=1e-10, atol=1e-14)
    for k in range(3):
        np.testing.assert_allclose(found[f"{at[k]}.b"], expected[f"{k}.b"], rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(
            found[f"{at[k]}.W"], factor[k] * expected[f"{k}.W"], rtol=1e-10, atol=1e-14
        )
    with pytest.raises(InputError, match="expected a Dense layer as the last one"):
        Network([*layers, Twice(2)])
