"""LayerNorm and RMSNorm in networks: derivatives, PyTorch's, in every way that a step is made, in files."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import host

import gpubp
from gpubp import Adam, Dense, Dropout, LayerNorm, Network, RMSNorm, Trainer
from gpubp.backend import threads
from gpubp.errors import ConfigError, InputError, NumericalError
from gpubp.training.step import Step

NORMS = (LayerNorm, RMSNorm)


def data(n=24, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 4)), rng.integers(0, 3, n)


def layers_of(norm, activation="tanh", rate=0.0):
    return [Dense(4, 8), norm(8, activation), Dropout(rate), Dense(8, 6), norm(6, activation), Dense(6, 3)]


def trainer_of(norm, dtype="float64", device="cpu", rate=0.0, **options):
    net = Network(layers_of(norm, rate=rate), dtype=dtype, device=device, seed=0)
    return Trainer(net, "softmax_cross_entropy", Adam(0.02), seed=3, **options)


# ---- derivatives ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("masks", [None, 5])
@pytest.mark.parametrize("activation", ["tanh", "gelu", "softplus"])
@pytest.mark.parametrize("norm", NORMS)
def test_derivatives(norm, activation, masks):
    """First of all layers, behind Dense and behind its own kind."""
    layers = [norm(4), *layers_of(norm, activation, 0.3)[:-1], norm(6), Dense(6, 3)]
    net = Network(layers, dtype="float64", seed=0)
    rng = np.random.default_rng(1)
    net.load_parameters({n: v + 0.3 * rng.standard_normal(v.shape) for n, v in net.parameters().items()})
    result = gpubp.gradcheck(net, *data(9), "softmax_cross_entropy", masks=masks)
    assert result.passed, result


def test_parameters_start_as_the_identity_of_normalized_rows():
    net = Network(layers_of(LayerNorm), seed=0)
    names = list(net.parameters())
    assert names == ["0.W", "0.b", "1.gain", "1.bias", "2.W", "2.b", "3.gain", "3.bias", "4.W", "4.b"]
    assert (net.parameters()["1.gain"] == 1).all()
    assert (net.parameters()["1.bias"] == 0).all()
    assert "1.bias" not in Network(layers_of(RMSNorm), seed=0).parameters()


def test_penalties_leave_gain_and_bias_alone():
    trainer = trainer_of(LayerNorm, l2=1.0)
    flat = trainer.net.parameters()
    start = flat["1.gain"].__array_interface__["data"][0]
    first = trainer.net.flat.__array_interface__["data"][0]
    assert start >= first + trainer.net.n_weights * 8


# ---- PyTorch -------------------------------------------------------------------------------------------


def torch_model(torch, net):
    parts = []
    for layer in net.layers:
        if isinstance(layer, Dense):
            parts.append(torch.nn.Linear(layer.n_in, layer.n_out, dtype=torch.float64))
            pairs = [(parts[-1].weight, layer.W.T), (parts[-1].bias, layer.b)]
        else:
            kind = torch.nn.LayerNorm if isinstance(layer, LayerNorm) else torch.nn.RMSNorm
            parts += [kind(layer.n_in, eps=layer.eps, dtype=torch.float64), torch.nn.Tanh()]
            pairs = [(parts[-2].weight, layer.gain)]
            pairs += [(parts[-2].bias, layer.bias)] if isinstance(layer, LayerNorm) else []
        with torch.no_grad():
            for theirs, ours in pairs:
                theirs.copy_(torch.from_numpy(np.array(ours)))
    return torch.nn.Sequential(*parts)


@pytest.mark.parametrize("norm", NORMS)
def test_200_steps_as_pytorch_makes_them(torch, norm):
    trainer = trainer_of(norm)
    model = torch_model(torch, trainer.net)
    x, y = data()
    np.testing.assert_allclose(
        trainer.net.forward(x), model(torch.from_numpy(x)).detach().numpy(), rtol=1e-12, atol=1e-13
    )
    theirs = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(200):
        x, y = data(seed=step)
        loss = torch.nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y))
        theirs.zero_grad()
        loss.backward()
        theirs.step()
        assert trainer.step(x, y) == pytest.approx(loss.item(), rel=1e-8)
    gains = [part.weight for part in model if isinstance(part, (torch.nn.LayerNorm, torch.nn.RMSNorm))]
    for k, gain in zip((1, 3), gains, strict=True):
        found = trainer.net.parameters()[f"{k}.gain"]
        np.testing.assert_allclose(found, gain.detach().numpy(), rtol=1e-7)


# ---- the same bits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("norm", NORMS)
def test_captured_is_eager_at_one_thread_and_two(monkeypatch, norm, dtype):
    x, y = data(64)
    bits = []
    for size, replayed in ((1, True), (2, True), (2, False)):
        monkeypatch.setattr(threads, "_threads", size)
        trainer = trainer_of(norm, dtype, rate=0.25)
        step = Step(trainer, 64, labels=True)
        step.fill(*trainer.net.check_batch(x, y, trainer.loss))
        if replayed:
            step.run(20)
        else:
            for _ in range(20):
                step._once()
        bits.append(trainer.net.flat.tobytes())
    assert bits[1] == bits[2]
    assert bits[0] == bits[1]


def test_dropout_drops_in_a_launch_of_its_own_both_ways(device):
    trainer = trainer_of(LayerNorm, device=device, rate=0.5)
    rows = [(row.scope, row.name) for row in trainer.explain(8, repeats=1).rows]
    assert [scope for scope, name in rows if name == "dropout 8x8"] == ["layer 1 forward", "layer 1 backward"]
    assert ("layer 1 forward", "layer norm + tanh 8x8") in rows


@pytest.mark.parametrize("norm", NORMS)
def test_resume_is_bit_identical(device, tmp_path, norm):
    whole, cut = (trainer_of(norm, "float32", device) for _ in range(2))
    x, y = data(50)
    whole.fit(x, y, epochs=4, batch_size=16)
    cut.fit(x, y, epochs=2, batch_size=16)
    cut.save(tmp_path / "run.safetensors")
    resumed = Trainer.load(tmp_path / "run.safetensors", device)
    resumed.fit(x, y, epochs=2, batch_size=16)
    assert host(resumed.net.flat).tobytes() == host(whole.net.flat).tobytes()
    np.testing.assert_array_equal(host(resumed.net.forward(x)), host(whole.net.forward(x)))


# ---- what is not finite --------------------------------------------------------------------------------


def test_the_layer_behind_an_overflow_is_named():
    net = Network([Dense(2, 2, "exp"), LayerNorm(2, "relu"), Dense(2, 1)], seed=0)
    net.load_parameters({**net.parameters(), "0.b": [100, 100]})
    with pytest.raises(NumericalError, match=r"step 1: .*in the output of layer 0 \(Dense\(2, 2, 'exp'\)\)"):
        Trainer(net, "mse", "sgd").step([[1, 2]], [1])


# ---- arguments, configuration --------------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("eps", [0, -1e-5, 1e-50, 1e39, np.nan, np.inf, "1", None, True, [1e-5]])
def test_bad_eps_get_one_line(norm, eps):
    message = rf"^{norm.__name__}: eps: expected a number from 1e-37 to 1e37; got [^\n]*$"
    with pytest.raises(InputError, match=message):
        norm(4, eps=eps)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("eps", [1e-37, 1e37])
def test_the_least_and_the_largest_eps_are_numbers_of_float32(norm, eps):
    net = Network([norm(4, eps=eps), Dense(4, 2)], device="cpu", dtype="float32", seed=0)
    assert np.isfinite(net.forward(np.zeros((3, 4)))).all()


@pytest.mark.parametrize("n", [0, -1, 1.5, "4", None, True])
def test_bad_widths_get_one_line(n):
    with pytest.raises(InputError, match=r"^LayerNorm: n: expected an integer of at least 1; got [^\n]*$"):
        LayerNorm(n)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            [Dense(4, 5), LayerNorm(6), Dense(6, 3)],
            "expected layer 1 to take the 5 outputs of layer 0; got n_in=6",
        ),
        (
            [Dense(4, 5), RMSNorm(5), Dense(4, 3)],
            "expected layer 2 to take the 5 outputs of layer 1; got n_in=4",
        ),
        ([Dense(4, 5), LayerNorm(5)], "expected a Dense layer as the last one"),
    ],
)
def test_layers_that_do_not_fit(layers, message):
    with pytest.raises(InputError, match=f"^layers: {message}[^\n]*$"):
        Network(layers)


def test_an_unknown_activation_gets_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown activation: .*did you mean 'relu'"):
        LayerNorm(4, "Relu")


@given(eps=st.sampled_from([1e-5, 1e-6, 0.1]), norm=st.sampled_from(NORMS))
def test_config_and_repr(eps, norm):
    net = Network([Dense(4, 5), norm(5, "gelu", eps=eps), Dense(5, 3)], seed=0)
    again = Network.from_config(net.config())
    assert (again.config(), repr(again)) == (net.config(), repr(net))
    assert repr(again.layers[1]) == f"{norm.__name__}(5, 'gelu', eps={eps:g})"
    assert again.layers[1].eps == eps
