"""Residual: against NumPy, against PyTorch, derivatives of every nesting, names of parameters, what it refuses."""

import copy
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpubp import (
    Adam,
    Dense,
    Dropout,
    Embedding,
    GatedDense,
    LayerNorm,
    Network,
    Residual,
    RMSNorm,
    SwiGLU,
    Trainer,
    gradcheck,
)
from gpubp.backend.cpu import CpuBackend
from gpubp.errors import ConfigError, InputError
from gpubp.layers import from_config, leaves
from gpubp.training import Objective

# Chains of a block of width n, by what their last layer does with dE/da: writes over it, or leaves it.
CHAINS = {
    "dense": lambda n: [Dense(n, n + 2, "tanh"), Dense(n + 2, n)],
    "activated": lambda n: [Dense(n, n, "tanh")],
    "gated": lambda n: [Dense(n, 3, "gelu", bias=False), GatedDense(3, n)],
    "swiglu": lambda n: [SwiGLU(n, 2 * n), Dense(2 * n, n, bias=False)],
    "normed": lambda n: [LayerNorm(n), Dense(n, n + 1, "tanh"), RMSNorm(n + 1), Dense(n + 1, n)],
    "a norm last": lambda n: [Dense(n, n, "tanh"), RMSNorm(n)],
    "nested": lambda n: [Residual([Dense(n, n, "tanh")]), Dense(n, n, "gelu")],
    "nested twice": lambda n: [Residual([Residual([GatedDense(n, n)]), Dense(n, n, "sigmoid")])],
}


def problem(layers, dtype="float64", device="cpu", seed=0, batch=6):
    rng = np.random.default_rng(seed)
    net = Network(layers, dtype=dtype, device=device, seed=seed)
    net.load_parameters({n: rng.standard_normal(v.shape) / 2 for n, v in net.parameters().items()})
    return net, rng.standard_normal((batch, net.n_in)), rng.standard_normal((batch, net.n_out))


@pytest.mark.parametrize("chain", CHAINS)
@settings(max_examples=20)
@given(n=st.integers(1, 9), batch=st.integers(1, 20), seed=st.integers(0, 99))
def test_it_adds_what_the_chain_gives(chain, n, batch, seed):
    net, x, _ = problem([Residual(CHAINS[chain](n)), Dense(n, 2)], seed=seed, batch=batch)
    alone = Network([*CHAINS[chain](n), Dense(n, n)], dtype="float64")
    inside = {k.removeprefix("0."): v for k, v in net.parameters().items() if k.startswith("0.")}
    last = len(alone.layers) - 1
    alone.load_parameters({**inside, f"{last}.W": np.eye(n), f"{last}.b": np.zeros(n)})
    p = net.parameters()
    expected = (x + alone.forward(x)) @ p["1.W"] + p["1.b"]
    np.testing.assert_allclose(net.forward(x), expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("masks", [None, 5])
@pytest.mark.parametrize("chain", CHAINS)
def test_every_derivative(device, chain, masks):
    """First, behind dropout; twice in a row; below a gated unit."""
    layers = [
        Dropout(0.2),
        Residual(CHAINS[chain](3)),
        Dropout(0.3),
        Residual(CHAINS[chain](3)),
        SwiGLU(3, 4),
        Dense(4, 2),
    ]
    net, x, y = problem(layers, device=device)
    result = gradcheck(net, x, y, "mse", np.linspace(0.5, 2, 6), masks=masks)
    print(result)
    assert result.passed


def test_a_chain_that_gives_nothing_leaves_the_rest_as_it_is():
    net, x, y = problem([Dense(3, 4, "tanh"), Residual([Dense(4, 4, bias=False)]), Dense(4, 2)])
    plain, _, _ = problem([Dense(3, 4, "tanh"), Dense(4, 2)])
    values = net.parameters()
    values["1.0.W"][...] = 0
    plain.load_parameters(
        {"0.W": values["0.W"], "0.b": values["0.b"], "1.W": values["2.W"], "1.b": values["2.b"]}
    )
    np.testing.assert_array_equal(net.forward(x), plain.forward(x))
    (_, found), (_, expected) = net.gradients(x, y, "mse"), plain.gradients(x, y, "mse")
    for mine, theirs in (("0.W", "0.W"), ("0.b", "0.b"), ("2.W", "1.W"), ("x", "x")):
        np.testing.assert_array_equal(found[mine], expected[theirs])


def test_as_pytorch_trains(torch):
    net = Network(
        [Dense(4, 6, "tanh"), Residual([Dense(6, 9, "relu"), Dense(9, 6)]), Dense(6, 3)], dtype="float64", seed=0
    )  # fmt: skip
    p = {n: torch.nn.Parameter(torch.tensor(np.array(v))) for n, v in net.parameters().items()}

    def model(x):
        a = torch.tanh(x @ p["0.W"] + p["0.b"])
        a = a + torch.relu(a @ p["1.0.W"] + p["1.0.b"]) @ p["1.1.W"] + p["1.1.b"]
        return a @ p["2.W"] + p["2.b"]

    trainer, theirs = Trainer(net, "mse", Adam(0.01), seed=3), torch.optim.Adam(p.values(), lr=0.01)
    for step in range(200):
        rng = np.random.default_rng(step)
        x, y = rng.standard_normal((16, 4)), rng.standard_normal((16, 3))
        loss = torch.nn.functional.mse_loss(model(torch.from_numpy(x)), torch.from_numpy(y))
        theirs.zero_grad()
        loss.backward()
        theirs.step()
        assert trainer.step(x, y) == pytest.approx(loss.item(), rel=1e-9)
    for name, parameter in p.items():
        np.testing.assert_allclose(
            net.parameters()[name], parameter.detach().numpy(), rtol=1e-8, atol=1e-10, err_msg=name
        )


def test_parameters_are_named_by_layer_and_place_inside():
    net = Network([Dense(3, 4), Residual(CHAINS["nested"](4)), Dense(4, 1)], seed=0)
    assert list(net.parameters()) == ["0.W", "0.b", "1.0.0.W", "1.0.0.b", "1.1.W", "1.1.b", "2.W", "2.b"]
    assert list(leaves(net.layers)) == ["0", "1.0.0", "1.1", "2"]
    assert net.n_parameters == 16 + 20 + 20 + 5
    assert all(view.size == np.prod(view.shape) for view in net.parameters().values())
    weights = sum(16 * -(-view.size // 16) for view in net.parameters().values() if view.ndim == 2)
    assert net.n_weights == weights  # what penalties see
    assert net.parameters()["1.0.0.W"].std() > 0


def test_networks_share_nothing():
    block = Residual([Dense(4, 4, "tanh", max_norm=0.5)])
    nets = [Network([block, Dense(4, 1)], seed=seed) for seed in (0, 1)]
    assert block.inner[0].W is None
    assert not np.array_equal(*(net.parameters()["0.0.W"] for net in nets))
    assert copy.copy(block).inner[0] is not block.inner[0]


@pytest.mark.parametrize("chain", CHAINS)
def test_config_repr_and_pickle(chain):
    net, x, _ = problem([Residual(CHAINS[chain](3)), Dropout(0.5), Dense(3, 2)])
    again, copied = Network.from_config(net.config()), pickle.loads(pickle.dumps(net))
    for one in (again, copied):
        assert (one.config(), repr(one)) == (net.config(), repr(net))
    np.testing.assert_array_equal(copied.forward(x), net.forward(x))


def test_words():
    block = Residual([SwiGLU(4, 8), Dense(8, 4, bias=False)])
    assert repr(block) == "Residual([GatedDense(4, 8, 'silu'), Dense(8, 4, 'identity', bias=False)])"
    assert block.described() == "x + (gated 4 to 8, silu; 8 to 4, identity, no bias)"
    assert block.flops == 2 * 4 * 16 + 2 * 8 * 4


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Residual([]), InputError, "Residual: expected at least one layer; got an empty list"),
        (lambda: Residual(5), InputError, "Residual: expected a list of layers; got 5"),
        (lambda: Residual([4, 4]), InputError, r"Residual: expected a list of layers; got 4 in \[4, 4\]"),
        (
            lambda: Residual([Dense(4, 4), Dropout(0.5)]),
            InputError,
            r"Residual: expected no Dropout inside; got .*Dropout\(0.5\)\]; put it behind the block",
        ),
        (
            lambda: Residual([Embedding(2, {1: 3}, 1)]),
            InputError,
            r"Residual: expected no Embedding inside; got .*; put it first in the network",
        ),
        (
            lambda: Residual([Dense(4, 5), Dense(6, 4)]),
            InputError,
            "Residual: expected layer 1 to take the 5 outputs of layer 0; got n_in=6",
        ),
        (
            lambda: Residual([Dense(4, 5), Dense(5, 3)]),
            InputError,
            "Residual: expected as many outputs as inputs, 4, to add them; got 3; end with a layer of n_out=4",
        ),
        (
            lambda: Network([Dense(2, 3), Residual([Dense(3, 3)])]),
            InputError,
            "layers: expected a Dense layer as the last one",
        ),
        (
            lambda: Network([Dense(2, 3), Residual([Dense(4, 4)]), Dense(4, 1)]),
            InputError,
            "layers: expected layer 1 to take the 3 outputs of layer 0; got n_in=4",
        ),
        (
            lambda: Network([Residual([Dense(3, 3, initial="he")]), Dense(3, 1)]),
            ConfigError,
            "unknown initializer: expected one of .* got 'he'",
        ),
        (lambda: from_config({"layer": "residual"}), ConfigError, "layer: expected layers; got"),
        (
            lambda: from_config({"layer": "residual", "layers": [{"layer": "conv"}]}),
            ConfigError,
            "unknown layer: expected .*; got 'conv'",
        ),
        (
            lambda: from_config({"layer": "residual", "layers": [7]}),
            InputError,
            "Residual: expected a list of layers; got 7",
        ),
    ],
)  # fmt: skip
def test_bad_input_gets_one_line(make, error, message):
    with pytest.raises(error, match=f"^{message}[^\n]*$"):
        make()


# ---- memory --------------------------------------------------------------------------------------------


def test_all_that_a_forward_pass_allocates_is_counted(monkeypatch):
    ops, taken = CpuBackend(plain=True), []  # whose products take no scratch
    net = Network(
        [Embedding(3, {1: 4}, 5), Residual([SwiGLU(7, 30), Residual([Dense(30, 30)]), Dense(30, 7)]), Dense(7, 2)],
        device=ops,
        seed=0,
    )  # fmt: skip
    new = ops._new
    monkeypatch.setattr(ops, "_new", lambda shape, dtype: taken.append(math.prod(shape)) or new(shape, dtype))
    net._forward(np.zeros((10, 3), np.float32))
    assert sum(taken) == 10 * (net.numbers_of_example - 3)


def test_what_is_wide_inside_a_block_bounds_the_rows_of_a_pass():
    wide = 2**13
    net = Network([Residual([Dense(2, wide), Dense(wide, 2)]), Dense(2, 1)], device="cpu", seed=0)
    assert net._most_rows * wide <= 2**24
    x = np.zeros((600, 2), np.float32)
    assert Objective(net, "mse", x, x[:, :1])._rows * wide <= 2**22
