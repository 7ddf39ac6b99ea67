"""BatchNorm in networks: derivatives, PyTorch's, running moments, in every way that a step is made, in files."""

import copy

import numpy as np
import pytest
from reference import host

import gpubp
from gpubp import (
    Adam,
    AdamW,
    BatchNorm,
    Dense,
    Dropout,
    Network,
    Population,
    PopulationTrainer,
    Residual,
    Trainer,
)
from gpubp.backend import threads
from gpubp.errors import ConfigError, InputError, NumericalError
from gpubp.training.objective import Objective
from gpubp.training.step import Step

MOMENTS = ("1.mean", "1.variance", "3.mean", "3.variance")


def data(n=24, seed=0):
    rng = np.random.default_rng(seed)
    return 2 * rng.standard_normal((n, 4)) + 1, rng.integers(0, 3, n)


def layers_of(activation="tanh", rate=0.0):
    return [
        Dense(4, 8),
        BatchNorm(8, activation),
        Dropout(rate),
        Dense(8, 6),
        BatchNorm(6, activation, momentum=0.3),
        Dense(6, 3),
    ]


def trainer_of(dtype="float64", device="cpu", rate=0.0, optimizer=None, **options):
    net = Network(layers_of(rate=rate), dtype=dtype, device=device, seed=0)
    return Trainer(net, "softmax_cross_entropy", optimizer or Adam(0.02), seed=3, **options)


# ---- derivatives ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("masks", [None, 5])
@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_derivatives(activation, masks):
    """First of all layers, behind Dense, behind its own kind, and in a block."""
    block = Residual([BatchNorm(6, "tanh"), Dense(6, 6), BatchNorm(6)])
    layers = [BatchNorm(4), *layers_of(activation, 0.3)[:-1], BatchNorm(6), block, Dense(6, 3)]
    net = Network(layers, dtype="float64", seed=0)
    rng = np.random.default_rng(1)
    moved = {n: v + 0.3 * rng.random(v.shape) for n, v in net.parameters().items()}
    net.load_parameters(moved)
    result = gpubp.gradcheck(net, *data(9), "softmax_cross_entropy", masks=masks)
    assert result.passed, result
    assert not [name for name in result.tensors if name.endswith(("mean", "variance"))]
    for name, value in net.parameters().items():
        np.testing.assert_array_equal(value, moved[name])


def test_parameters_start_as_the_identity_and_the_moments_are_not_trained():
    net = Network(layers_of(), seed=0)
    parameters = net.parameters()
    assert (parameters["1.gain"] == 1).all()
    assert (parameters["1.variance"] == 1).all()
    assert not parameters["1.mean"].any()
    assert not parameters["1.bias"].any()
    _, gradients = net.gradients(*data(), "softmax_cross_entropy")
    assert set(parameters) - set(gradients) == set(MOMENTS)
    assert net.n_parameters == sum(view.size for name, view in parameters.items() if name not in MOMENTS)
    assert (net.parameters()["1.mean"] == 0).all()  # gradients change nothing


# ---- PyTorch -------------------------------------------------------------------------------------------


def torch_model(torch, net):
    parts = []
    for layer in net.layers:
        if isinstance(layer, Dense):
            parts.append(torch.nn.Linear(layer.n_in, layer.n_out, dtype=torch.float64))
            pairs = [(parts[-1].weight, layer.W.T), (parts[-1].bias, layer.b)]
        else:
            norm = torch.nn.BatchNorm1d(
                layer.n_in, eps=layer.eps, momentum=layer.momentum, dtype=torch.float64
            )
            parts += [norm, torch.nn.Tanh()]
            pairs = [(norm.weight, layer.gain), (norm.bias, layer.bias)]
        with torch.no_grad():
            for theirs, ours in pairs:
                theirs.copy_(torch.from_numpy(np.array(ours)))
    return torch.nn.Sequential(*parts)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_200_steps_as_pytorch_makes_them(torch, accumulate):
    trainer = trainer_of(accumulate=accumulate)
    model = torch_model(torch, trainer.net)
    theirs = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(200):
        x, y = data(seed=step)
        theirs.zero_grad()
        loss = 0.0
        for xs, ys in zip(np.split(x, accumulate), np.split(y, accumulate), strict=True):
            part = torch.nn.functional.cross_entropy(model(torch.from_numpy(xs)), torch.from_numpy(ys))
            (part / accumulate).backward()
            loss += part.item() / accumulate
        theirs.step()
        assert trainer.step(x, y) == pytest.approx(loss, rel=1e-8)
    norms = [part for part in model if isinstance(part, torch.nn.BatchNorm1d)]
    for k, norm in zip((1, 3), norms, strict=True):
        found = trainer.net.parameters()
        np.testing.assert_allclose(found[f"{k}.mean"], norm.running_mean.numpy(), rtol=1e-7)
        np.testing.assert_allclose(found[f"{k}.variance"], norm.running_var.numpy(), rtol=1e-7)
        np.testing.assert_allclose(found[f"{k}.gain"], norm.weight.detach().numpy(), rtol=1e-7)
    model.eval()
    x, _ = data(7, seed=9)
    expected = model(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(trainer.net.forward(x), expected, rtol=1e-7)
    np.testing.assert_allclose(trainer.net.forward(x[:1]), expected[:1], rtol=1e-7)


# ---- updates leave the running moments alone -----------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": AdamW(0.1, weight_decay=0.5)},
        {"optimizer": AdamW(0.1, weight_decay=0.5), "groups": {"*": {"weight_decay": 0.9}}},
        {"l2": 1.0, "clip_norm": 1e-3},
    ],
)
def test_they_follow_the_batches_alone(options):
    x, y = data()
    plain, other = trainer_of(optimizer=AdamW(0.0)), trainer_of(**options)
    assert plain.step(x, y) is not None
    other.step(x, y)
    for name in MOMENTS:
        np.testing.assert_array_equal(other.net.parameters()[name], plain.net.parameters()[name])
    z = x @ plain.net.parameters()["0.W"]
    np.testing.assert_allclose(plain.net.parameters()["1.mean"], 0.1 * z.mean(axis=0), rtol=1e-12)
    variance = 0.9 + 0.1 * z.var(axis=0, ddof=1)
    np.testing.assert_allclose(plain.net.parameters()["1.variance"], variance, rtol=1e-12)


def test_they_follow_inside_a_block_too():
    net = Network([Residual([BatchNorm(4), Dense(4, 4)]), Dense(4, 3)], dtype="float64", seed=0)
    x, y = data()
    Trainer(net, "softmax_cross_entropy", "sgd", seed=0).step(x, y)
    np.testing.assert_allclose(net.parameters()["0.0.mean"], 0.1 * x.mean(axis=0), rtol=1e-12)
    variance = 0.9 + 0.1 * x.var(axis=0, ddof=1)
    np.testing.assert_allclose(net.parameters()["0.0.variance"], variance, rtol=1e-12)


def test_a_group_names_what_is_trained():
    with pytest.raises(InputError, match=r"^groups\['\*.mean'\]: [^\n]* matches none"):
        trainer_of(groups={"*.mean": {"lr_factor": 0.0}})


def test_a_loss_that_is_not_finite_moves_nothing():
    trainer = trainer_of(on_nan="skip")
    x, y = data()
    trainer.step(x, y)
    before = trainer.net.flat.copy()
    with pytest.warns(RuntimeWarning, match="left out"), pytest.raises(NumericalError, match="in all 1; "):
        trainer.fit(np.full_like(x, 1e308), y, epochs=1, batch_size=24)
    np.testing.assert_array_equal(trainer.net.flat, before)


def test_the_average_has_moments_of_its_own():
    trainer = trainer_of(ema=0.5)
    x, y = data()
    trainer.fit(x, y, epochs=3, batch_size=8)
    own = trainer.net.parameters()["1.mean"].copy()
    with trainer.averaged():
        shown = trainer.net.parameters()["1.mean"].copy()
        assert np.isfinite(trainer.net.forward(x)).all()
    assert (shown != own).all()
    assert (np.sign(shown) == np.sign(own)).all()
    np.testing.assert_array_equal(trainer.net.parameters()["1.mean"], own)


# ---- the same bits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_captured_is_eager_at_one_thread_and_two(monkeypatch, dtype):
    x, y = data(64)
    bits = []
    for size, replayed in ((1, True), (2, True), (2, False)):
        monkeypatch.setattr(threads, "_threads", size)
        trainer = trainer_of(dtype, rate=0.25, accumulate=2)
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


def test_resume_and_copies_are_bit_identical(device, tmp_path):
    whole, cut = (trainer_of("float32", device) for _ in range(2))
    x, y = data(50)
    whole.fit(x, y, epochs=4, batch_size=16)
    cut.fit(x, y, epochs=2, batch_size=16)
    cut.save(tmp_path / "run.safetensors")
    resumed = Trainer.load(tmp_path / "run.safetensors", device)
    resumed.fit(x, y, epochs=2, batch_size=16)
    assert host(resumed.net.flat).tobytes() == host(whole.net.flat).tobytes()
    expected = host(whole.net.forward(x))
    np.testing.assert_array_equal(host(resumed.net.forward(x)), expected)
    np.testing.assert_array_equal(host(copy.copy(whole.net).forward(x)), expected)
    other = Network.from_config(whole.net.config(), device=device)
    other.load_parameters({name: host(view) for name, view in whole.net.parameters().items()})
    np.testing.assert_array_equal(host(other.forward(x)), expected)


def test_forward_replays_what_it_computed():
    net = trainer_of("float32").net
    net.load_parameters({**net.parameters(), "1.mean": np.arange(8), "1.variance": np.arange(1, 9)})
    x = data(16)[0].astype("float32")
    first = net.forward(x)
    for _ in range(3):
        np.testing.assert_array_equal(net.forward(x), first)


# ---- bad input -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "options", "accumulate"),
    [(33, {"batch_size": 16}, 1), (1, {"batch_size": 4}, 1), (24, {"batch_size": 24}, 16)],
)
def test_a_batch_of_one_is_refused_before_training(n, options, accumulate):
    trainer = trainer_of(accumulate=accumulate)
    before = trainer.net.flat.copy()
    told = rf"^BatchNorm\(8[^\n]*; got 1 from [^\n]* of {n} examples in batches of [^\n]*$"
    with pytest.raises(ConfigError, match=told):
        trainer.fit(*data(n), epochs=2, **options)
    np.testing.assert_array_equal(trainer.net.flat, before)
    trainer.fit(*data(32), epochs=1, batch_size=32)


def test_a_step_of_one_is_refused():
    trainer = trainer_of()
    with pytest.raises(ConfigError, match=r"^BatchNorm[^\n]*got 1 from a batch of 1; [^\n]*$"):
        trainer.step(*data(1))
    with pytest.raises(InputError, match=r"^BatchNorm[^\n]*: expected at least 2 examples at a time[^\n]*$"):
        trainer.net.gradients(*data(1), "softmax_cross_entropy")
    trainer.step(*data(2))


@pytest.mark.parametrize("momentum", [0, -0.1, 1.5, np.nan, "0.1", None, True])
def test_bad_momenta_get_one_line(momentum):
    with pytest.raises(InputError, match=r"^BatchNorm: momentum: expected a number above 0[^\n]*$"):
        BatchNorm(4, momentum=momentum)


def test_a_variance_below_0_is_none():
    net = trainer_of().net
    with pytest.raises(
        InputError, match=r"^parameter 1.variance: expected no number below 0; got -1;[^\n]*$"
    ):
        net.load_parameters({**net.parameters(), "1.variance": -np.ones(8)})


def test_an_objective_takes_examples_by_themselves():
    with pytest.raises(ConfigError, match=r"^objective: [^\n]*BatchNorm[^\n]*$"):
        Objective(trainer_of().net, "softmax_cross_entropy", *data())


def test_config_and_repr():
    net = Network([Dense(4, 5), BatchNorm(5, "gelu", eps=0.1, momentum=0.2), Dense(5, 3)], seed=0)
    again = Network.from_config(net.config())
    assert (again.config(), repr(again)) == (net.config(), repr(net))
    assert repr(again.layers[1]) == "BatchNorm(5, 'gelu', eps=0.1, momentum=0.2)"


# ---- what is not finite --------------------------------------------------------------------------------


def test_the_layer_that_overflows_by_the_moments_of_the_batch_is_named():
    net = Network([Dense(4, 8), BatchNorm(8, "relu"), Dense(8, 3)], seed=0)
    trainer = Trainer(net, "softmax_cross_entropy", "sgd", seed=0)
    x, y = data()
    trainer.step(x, y)
    with pytest.raises(NumericalError, match=r"output of layer 1 \(BatchNorm"):
        trainer.step(np.sign(x) * np.float32(1e38), y)


def test_a_population_refuses_a_batch_of_one_before_a_member_is_touched():
    nets = [Network(layers_of(), seed=seed) for seed in range(2)]
    trainer = PopulationTrainer(Population.of(nets), "softmax_cross_entropy")
    with pytest.raises(ConfigError, match=r"^BatchNorm[^\n]*the last batch of 1 of 33 examples[^\n]*$"):
        trainer.fit(*data(33), epochs=1, batch_size=16)
    assert [trainer[k].total_steps for k in range(2)] == [None, None]
    trainer.fit(*data(32), epochs=1, batch_size=16)
