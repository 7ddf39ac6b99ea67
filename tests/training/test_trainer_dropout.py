"""Dropout in a network: its place, its forward and backward against NumPy, and runs that give the same bits anyhow."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import ACTIVATION, host, mask

import gpubp
from gpubp import Dense, Dropout, Network, Trainer
from gpubp.backend import threads
from gpubp.errors import ConfigError, InputError, NumericalError
from gpubp.kernels.activations import ACTIVATIONS
from gpubp.optimizers import SGD, Adam
from gpubp.training.step import Step


def data(n=24, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 4)), rng.integers(0, 3, n)


def layers_of(activation="tanh", rates=(0.2, 0.5, 0.25)):
    return [
        Dropout(rates[0]), Dense(4, 16, activation), Dropout(rates[1]), Dense(16, 8, activation), Dropout(rates[2]),
        Dense(8, 3),
    ]  # fmt: skip


def trainer_of(dtype="float64", device="cpu", optimizer=None, activation="tanh", **options):
    net = Network(layers_of(activation), dtype=dtype, device=device, seed=0)
    return Trainer(net, "softmax_cross_entropy", optimizer or SGD(0.2), **({"seed": 3} | options))


def by_hand(net, x, y, rates, seed, step):
    """Loss and gradients of softmax cross-entropy under the masks of that step, in NumPy."""
    a, inputs, slopes = x, [], []
    masks = [
        mask(len(x), n, r, seed=seed, step=step, layer=k)
        for k, (n, r) in enumerate(zip((4, 16, 8), rates, strict=True))
    ]
    a = a * masks[0]
    for k, layer in enumerate(net.layers):
        inputs.append(a)
        z = a @ net.parameters()[f"{k}.W"] + net.parameters()[f"{k}.b"]
        if k < 2:
            f, d_f = ACTIVATION[layer.activation.name]
            slopes.append(d_f(z) * masks[k + 1])
            a = f(z) * masks[k + 1]
    log_p = z - z.max(axis=1, keepdims=True)
    log_p = log_p - np.log(np.exp(log_p).sum(axis=1, keepdims=True))
    loss = -log_p[np.arange(len(y)), y].mean()
    delta, gradients = (np.exp(log_p) - np.eye(3)[y]) / len(y), {}
    for k in (2, 1, 0):
        gradients[f"{k}.W"], gradients[f"{k}.b"] = inputs[k].T @ delta, delta.sum(axis=0)
        delta = delta @ net.parameters()[f"{k}.W"].T
        delta = delta * (slopes[k - 1] if k else masks[0])
    return loss, gradients | {"x": delta}


# ---- the mathematics -----------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_gradients_under_fixed_masks(device, activation):
    net = Network(layers_of(activation), dtype="float64", device=device, seed=0)
    twin = Network(layers_of(activation), dtype="float64", seed=0)
    x, y = data()
    loss, gradients = net.gradients(x, y, "softmax_cross_entropy", masks=5)
    expected, by_numpy = by_hand(twin, x, y, (0.2, 0.5, 0.25), 5, 0)
    assert loss == pytest.approx(expected, rel=1e-11)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(host(gradient), by_numpy[name], rtol=1e-9, atol=1e-11, err_msg=name)


@pytest.mark.parametrize("activation", ["tanh", "gelu", "sigmoid"])
def test_gradcheck_with_and_without_masks(device, activation):
    net = Network(layers_of(activation), dtype="float64", device=device, seed=0)
    x, y = data(3)
    for masks in (None, 9) if device == "cpu" else (9,):
        result = gpubp.gradcheck(net, x, y, "softmax_cross_entropy", masks=masks)
        assert result.passed, str(result)


def test_gradcheck_finds_a_mask_that_changes():
    """What it compares with is the forward pass: masks of another seed there, and every tensor fails."""
    net = Network(layers_of(), dtype="float64", seed=0)
    x, y = data(7)
    _, ours = net.gradients(x, y, "softmax_cross_entropy", masks=1)
    _, others = net.gradients(x, y, "softmax_cross_entropy", masks=2)
    for name in ours:
        assert np.abs(ours[name] - others[name]).max() > 1e-3, name


def test_the_steps_of_a_trainer(device):
    trainer, twin = trainer_of(device=device), trainer_of().net
    for step in range(30):
        x, y = data(1 + step % 9, seed=step)
        loss, gradients = by_hand(twin, x, y, (0.2, 0.5, 0.25), trainer.masks, step)
        for name, view in twin.parameters().items():
            view -= 0.2 * gradients[name]
        assert float(trainer.step(x, y)) == pytest.approx(loss, rel=1e-10)
        np.testing.assert_allclose(host(trainer.net.flat), twin.flat, rtol=1e-9, atol=1e-12)


def test_the_callers_inputs_are_left_alone(device):
    trainer = trainer_of("float32", device)
    x, y = data()
    x = x.astype(np.float32)
    before = x.copy()
    trainer.fit(x, y, epochs=2, batch_size=8)
    trainer.step(x, y)
    trainer.net.gradients(x, y, "softmax_cross_entropy", masks=1)
    np.testing.assert_array_equal(x, before)


def test_forward_evaluate_and_gradients_drop_nothing(device):
    trainer = trainer_of(device=device)
    plain = Network([layer for layer in layers_of() if isinstance(layer, Dense)], dtype="float64", seed=0)
    plain.load_parameters({n: host(v) for n, v in trainer.net.parameters().items()})
    x, y = data()
    np.testing.assert_allclose(host(trainer.net.forward(x)), plain.forward(x), rtol=1e-13)
    loss, gradients = trainer.net.gradients(x, y, "softmax_cross_entropy")
    expected, right = plain.gradients(x, y, "softmax_cross_entropy")
    assert loss == pytest.approx(expected, rel=1e-13)
    assert trainer.evaluate(x, y)["loss"] == pytest.approx(expected, rel=1e-13)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(host(gradient), right[name], rtol=1e-11, atol=1e-14)


# ---- the same bits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1, 2])
def test_captured_is_eager(monkeypatch, dtype, size):
    monkeypatch.setattr(threads, "_threads", size)
    x, y = data(64)
    bits = []
    for replayed in (True, False):
        trainer = trainer_of(dtype, optimizer=Adam(0.01))
        step = Step(trainer, 64, labels=True)
        step.fill(*trainer.net.check_batch(x, y, trainer.loss))
        if replayed:
            step.run(20)
        else:
            for _ in range(20):
                step._once()
        bits.append(trainer.net.flat.tobytes())
    assert bits[0] == bits[1]


def test_the_seed_of_the_trainer_is_that_of_the_masks():
    first, same, other, none = (trainer_of(seed=seed) for seed in (3, 3, 4, None))
    assert first.masks == same.masks
    assert len({first.masks, other.masks, none.masks}) == 3
    x, y = data()
    assert first.step(x, y) == same.step(x, y) != other.step(x, y)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_resume_is_bit_identical(device, tmp_path, dtype):
    whole, cut = (trainer_of(dtype, device, Adam(0.01)) for _ in range(2))
    x, y = data(50)
    whole.fit(x, y, epochs=6, batch_size=16)
    cut.fit(x, y, epochs=3, batch_size=16)
    cut.save(tmp_path / "run.safetensors")
    resumed = Trainer.load(tmp_path / "run.safetensors", device)
    assert (resumed.masks, resumed.net.rates) == (whole.masks, [0.2, 0.5, 0.25])
    resumed.fit(x, y, epochs=3, batch_size=16)
    assert host(resumed.net.flat).tobytes() == host(whole.net.flat).tobytes()
    assert float(resumed.step(x, y)) == float(whole.step(x, y))


def test_explain_shows_the_launches_and_rate_0_has_none():
    def names(rates):
        trainer = Trainer(Network(layers_of("relu", rates), seed=0), "softmax_cross_entropy", "sgd")
        return [(row.scope, row.name) for row in trainer.explain(8, repeats=1).rows]

    plain = names((0, 0.0, 0))
    assert not any("dropout" in name for _, name in plain)
    assert ("layer 0 forward", "bias + relu 8x16") in plain
    found = names((0.1, 0.2, 0.3))
    assert ("layer 0 forward", "dropout 8x4") in found
    assert ("layer 0 forward", "bias + relu + dropout 8x16") in found
    assert ("layer 1 forward", "bias + relu + dropout 8x8") in found
    assert len(found) == len(plain) + 1  # that of the inputs; the others are part of what there was


def test_it_regularizes():
    """Few noisy examples in a wide network: without dropout it learns them by heart, with it much less."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 4)), rng.integers(0, 2, 60)
    losses = []
    for rate in (0.0, 0.5):
        net = Network([Dense(4, 64, "relu"), Dropout(rate), Dense(64, 2)], seed=0)
        trainer = Trainer(net, "softmax_cross_entropy", Adam(0.01), seed=0)
        trainer.fit(x, y, epochs=150, batch_size=20)
        losses.append(trainer.evaluate(x, y)["loss"])
    assert losses[0] < 0.8 * losses[1]


# ---- what is not finite --------------------------------------------------------------------------------


def test_the_layer_that_overflows_is_named():
    net = Network([Dense(2, 2), Dropout(0.5), Dense(2, 2, "exp"), Dropout(0.5), Dense(2, 1)], seed=0)
    net.load_parameters({**net.parameters(), "1.b": [100, 100]})
    with pytest.raises(NumericalError, match=r"step 1: .*in the output of layer 1 \(Dense\(2, 2, 'exp'\)\)"):
        Trainer(net, "mse", "sgd", seed=0).step([[1, 2]], [1])


# ---- arguments, configuration --------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1, 1.0, -0.1, 2, np.nan, np.inf, "0.5", None, True, [0.5]])
def test_bad_rates_get_one_line(rate):
    with pytest.raises(
        InputError, match=r"^Dropout: rate: expected a number of at least 0 and below 1; got [^\n]*$"
    ):
        Dropout(rate)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([Dense(4, 3), Dropout(0.5)], "expected a Dense layer as the last one"),
        ([Dropout(0.5)], "expected a Dense layer as the last one"),
        ([Dropout(0.5), Dropout(0.5), Dense(4, 3)], "expected one Dropout between layers; got two"),
        ([4, Dropout(0.5), 3], "expected widths only or layers only"),
        (
            [Dense(4, 5), Dropout(0.5), Dense(4, 3)],
            "expected layer 1 to take the 5 outputs of layer 0; got n_in=4",
        ),
    ],
)
def test_layers_that_do_not_fit(layers, message):
    with pytest.raises(InputError, match=f"^layers: {message}[^\n]*$"):
        Network(layers)


@pytest.mark.parametrize("masks", [-1, 2**62, 0.5, "1", True])
def test_bad_masks_get_one_line(masks):
    net = Network(layers_of(), seed=0)
    for call in (net.gradients, lambda *a, **k: gpubp.gradcheck(net, *a, **k)):
        with pytest.raises(
            InputError, match=r"^masks: expected None or an integer of at least 0, below 2\^62; got"
        ):
            call(*data(), "softmax_cross_entropy", masks=masks)


@given(rates=st.tuples(*[st.sampled_from([0.0, 0.1, 0.5, 0.999])] * 3))
def test_config_repr_and_pickle(rates):
    net = Network(layers_of(rates=rates), seed=0)
    again = Network.from_config(net.config())
    copied = pickle.loads(pickle.dumps(net))
    for one in (again, copied):
        assert one.rates == net.rates == list(rates)
        assert (one.config(), repr(one)) == (net.config(), repr(net))
    assert repr(net).count("Dropout(") == sum(rate > 0 for rate in rates)
    np.testing.assert_array_equal(copied.forward(data()[0]), net.forward(data()[0]))
    assert list(net.parameters()) == ["0.W", "0.b", "1.W", "1.b", "2.W", "2.b"]  # dropout has no number


def test_configs_of_something_else():
    with pytest.raises(ConfigError, match=r"expected 'dense', 'dropout', .*; got 'conv'"):
        Network.from_config({"layers": [{"layer": "conv"}], "dtype": "float32"})
    with pytest.raises(ConfigError, match="layer: expected rate; got"):
        Network.from_config({"layers": [{"layer": "dropout", "p": 0.5}], "dtype": "float32"})


def test_numpy_numbers_are_numbers(tmp_path):
    net = Network([Dropout(np.float32(0.5)), Dense(4, 3)], seed=np.int64(0))
    trainer = Trainer(net, "softmax_cross_entropy", seed=np.int64(3))
    trainer.save(tmp_path / "run.safetensors")
    assert Trainer.load(tmp_path / "run.safetensors").net.rates == [0.5]
