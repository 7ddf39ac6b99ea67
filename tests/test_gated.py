"""GatedDense, SwiGLU and GEGLU: equations, initial values, derivatives, PyTorch, configuration, what they refuse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import ACTIVATION

import gpubp
from gpubp import GEGLU, Adam, Dense, Dropout, GatedDense, Network, SwiGLU, Trainer, gradcheck
from gpubp.errors import ConfigError, InputError
from gpubp.layers import GATES, from_config, from_widths

widths = st.integers(1, 12)


def gate_and_value(x, parameters, k):
    b = parameters.get(f"{k}.b", 0)
    return np.split(x @ parameters[f"{k}.W"] + b, 2, axis=1)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", ["silu", "gelu", "sigmoid"])
@settings(max_examples=40)
@given(batch=st.integers(1, 20), n_in=widths, n_out=widths, seed=st.integers(0, 999))
def test_the_equations(name, bias, batch, n_in, n_out, seed):
    """Forward, and each gradient below a layer that only adds up what it takes."""
    net = Network([GatedDense(n_in, n_out, name, bias=bias), Dense(n_out, 1)], dtype="float64", seed=seed)
    rng = np.random.default_rng(seed)
    p = {n: rng.standard_normal(v.shape) for n, v in net.parameters().items()}
    net.load_parameters({**p, "1.W": np.ones((n_out, 1)), "1.b": np.zeros(1)})
    x, up = rng.standard_normal((batch, n_in)), rng.standard_normal((batch, 1))
    (u, v), (f, d_f) = gate_and_value(x, p, 0), ACTIVATION[name]
    a = (f(u) * v).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(net.forward(x), a, rtol=1e-10, atol=1e-11)
    _, found = net.gradients(x, net.forward(x) - batch * up, "half_sse")  # dE/da of the last layer is up
    delta = np.hstack([up * v * d_f(u), up * f(u)])
    np.testing.assert_allclose(found["0.W"], x.T @ delta, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(found["x"], delta @ p["0.W"].T, rtol=1e-8, atol=1e-8)
    assert ("0.b" in found) == bias
    if bias:
        np.testing.assert_allclose(found["0.b"], delta.sum(axis=0), rtol=1e-8, atol=1e-8)


def test_each_half_starts_as_the_weights_of_a_dense_layer():
    """Of He's variance for silu, Glorot's for sigmoid: by n_out, not by both halves; different numbers in each."""
    for layer, variance in ((SwiGLU(300, 200), 2 / 300), (GatedDense(300, 200, "sigmoid"), 2 / 500)):
        net = Network([layer, Dense(200, 1)], seed=0)
        halves = np.split(net.parameters()["0.W"], 2, axis=1)
        for half in halves:
            assert half.var() == pytest.approx(variance, rel=0.03)
        assert abs(np.corrcoef(*(half.ravel() for half in halves))[0, 1]) < 0.02
        assert not net.parameters()["0.b"].any()
    dense, gated = (Network([kind(4, 3, "silu"), Dense(3, 1)], seed=5) for kind in (Dense, GatedDense))
    np.testing.assert_array_equal(gated.parameters()["0.W"][:, :3], dense.parameters()["0.W"])


@pytest.mark.parametrize("masks", [None, 7])
def test_every_derivative(device, masks):
    """First, in the middle twice over, and behind dropout of its own outputs."""
    layers = [
        SwiGLU(3, 5),
        Dense(5, 4, "tanh"),
        GEGLU(4, 6, bias=False),
        Dropout(0.3),
        GatedDense(6, 4, "sigmoid"),
        Dense(4, 3),
    ]
    net = Network(layers, dtype="float64", device=device, seed=1)
    rng = np.random.default_rng(0)
    x, y, w = rng.standard_normal((6, 3)), rng.integers(0, 3, 6), rng.random(6)
    result = gradcheck(net, x, y, "softmax_cross_entropy", w, masks=masks)
    print(result)
    assert result.passed


def test_as_pytorch_trains(torch):
    class Gated(torch.nn.Module):
        def __init__(self, net, k, gate):
            super().__init__()
            p = net.parameters()
            self.W, self.b = (
                torch.nn.Parameter(torch.tensor(np.array(p[f"{k}.{name}"]))) for name in ("W", "b")
            )
            self.gate = gate

        def forward(self, x):
            u, v = (x @ self.W + self.b).chunk(2, dim=1)
            return self.gate(u) * v

    class Affine(Gated):
        def forward(self, x):
            return x @ self.W + self.b

    net = Network([SwiGLU(4, 7), GEGLU(7, 5), Dense(5, 3)], dtype="float64", seed=0)
    trainer = Trainer(net, "softmax_cross_entropy", Adam(0.01), seed=3)
    F = torch.nn.functional
    model = torch.nn.Sequential(Gated(net, 0, F.silu), Gated(net, 1, F.gelu), Affine(net, 2, None))
    theirs = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(200):
        rng = np.random.default_rng(step)
        x, y = rng.standard_normal((16, 4)), rng.integers(0, 3, 16)
        loss = F.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y))
        theirs.zero_grad()
        loss.backward()
        theirs.step()
        assert trainer.step(x, y) == pytest.approx(loss.item(), rel=1e-9)
    for k, module in enumerate(model):
        for name in ("W", "b"):
            expected = getattr(module, name).detach().numpy()
            np.testing.assert_allclose(net.parameters()[f"{k}.{name}"], expected, rtol=1e-8, atol=1e-10)


def test_a_gate_of_ones_own():
    own = gpubp.activation(lambda z: z / (1 + gpubp.scalar.exp(-z)))
    nets = [Network([GatedDense(3, 4, g), Dense(4, 2)], dtype="float64", seed=0) for g in (own, "silu")]
    nets[0].load_parameters(nets[1].parameters())
    x = np.random.default_rng(0).standard_normal((5, 3))
    np.testing.assert_allclose(nets[0].forward(x), nets[1].forward(x), rtol=1e-13)
    again = Network.from_config(nets[0].config())
    again.load_parameters(nets[0].parameters())
    np.testing.assert_array_equal(again.forward(x), nets[0].forward(x))


@pytest.mark.parametrize("layer", [SwiGLU(2, 3), GEGLU(4, 1, bias=False, initial="he_uniform")])
def test_config_round_trip(layer):
    again = from_config(layer.config())
    assert (again.config(), repr(again)) == (layer.config(), repr(layer))
    assert layer.config()["layer"] == "gated"


def test_names_and_shapes():
    assert repr(SwiGLU(8, 4)) == "GatedDense(8, 4, 'silu')"
    assert repr(GEGLU(8, 4, bias=False)) == "GatedDense(8, 4, 'gelu', bias=False)"
    assert GatedDense(8, 4).shapes() == {"W": (8, 8), "b": (8,)}
    assert GatedDense(8, 4).described() == "gated 8 to 4, silu"
    assert GatedDense(8, 4).flops == 2 * 8 * 8


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: GatedDense(0, 3), InputError, r"n_in: expected an integer of at least 1; got 0"),
        (lambda: SwiGLU(3, 2.5), InputError, r"n_out: expected an integer of at least 1; got 2\.5"),
        (lambda: GatedDense(2, 3, "swiglu"), ConfigError, r"unknown activation: expected one of .* got 'swiglu'"),
        (lambda: GEGLU(2, 3, bias=1), InputError, r"bias: expected True or False; got 1"),
        (lambda: Network([SwiGLU(2, 3)]), InputError, r"layers: expected a Dense layer as the last one"),
        (
            lambda: Network([SwiGLU(2, 3), Dense(6, 1)]),
            InputError,
            r"layers: expected layer 1 to take the 3 outputs of layer 0; got n_in=6",
        ),
        (
            lambda: Network([SwiGLU(2, 3, initial="he"), Dense(3, 1)]),
            ConfigError,
            r"unknown initializer: expected one of .* got 'he'",
        ),
        (
            lambda: from_config({"layer": "gated", "n_in": 2}),
            ConfigError,
            r"layer: expected n_in, n_out, activation, bias, initial; got",
        ),
    ],
)  # fmt: skip
def test_bad_input_gets_one_line(make, error, message):
    with pytest.raises(error, match=f"^{message}[^\n]*$"):
        make()


@pytest.mark.parametrize("gated", GATES)
def test_units_between_widths_do_not_grow_from_layer_to_layer(gated):
    *hidden, _ = from_widths([64, 64, 64, 64, 10], "relu", "identity", gated=gated)
    net = Network([*hidden, Dense(64, 64)], dtype="float64", device="cpu", seed=0)
    net.load_parameters({**net.parameters(), "3.W": np.eye(64)})
    assert 0.01 < net.forward(np.random.default_rng(0).standard_normal((200, 64))).std() < 1
