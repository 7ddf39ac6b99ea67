"""Trainer.step: one batch, its loss, penalties, weights, schedules; what stops it; and the trainer's arguments."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import host

import gpubp
from gpubp import Network, Trainer
from gpubp.errors import ConfigError, InputError, NumericalError
from gpubp.losses import LOSSES
from gpubp.optimizers import SGD, Adam
from gpubp.schedules import Cosine, Exponential, OneCycle, Plateau, Warmup
from gpubp.training import evaluation


def data(n=40, seed=0, n_in=4, n_out=3, loss="mse"):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, n_in))
    if LOSSES[loss].softmax:
        return x, rng.integers(0, n_out, n)
    return x, rng.uniform(0, 1, (n, n_out))


def trainer_of(loss="mse", optimizer=None, dtype="float64", hidden="tanh", device="cpu", **options):
    net = Network([4, 8, 3], hidden, dtype=dtype, device=device, seed=0)
    return Trainer(net, loss, optimizer or SGD(0.1), **options)


# ---- the step ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_is_that_before_the_update(device, loss):
    trainer = trainer_of(loss, device=device)
    x, y = data(loss=loss)
    for _ in range(5):
        expected, gradients = trainer.net.gradients(x, y, loss)
        before = {n: host(v).copy() for n, v in trainer.net.parameters().items()}
        got = trainer.step(x, y)
        assert isinstance(got, float) or device == "cuda"  # there it is read when it is asked for
        assert float(got) == expected
        for name, view in trainer.net.parameters().items():  # every gradient is that of the old parameters
            after = before[name] - 0.1 * host(gradients[name])
            np.testing.assert_allclose(host(view), after, rtol=1e-14, atol=1e-16)
    assert trainer.steps == 5


@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=8))
def test_any_batch_size_from_call_to_call(device, sizes):
    trainer, net = trainer_of(device=device), Network([4, 8, 3], "tanh", dtype="float64", seed=0)
    for k, size in enumerate(sizes):
        x, y = data(size, seed=k)
        loss, gradients = net.gradients(x, y, "mse")
        for name, view in net.parameters().items():
            view -= 0.1 * gradients[name]
        assert float(trainer.step(x, y)) == pytest.approx(loss, rel=1e-12)
        np.testing.assert_allclose(host(trainer.net.flat), net.flat, rtol=1e-11, atol=1e-13)
    assert trainer.steps == len(sizes)


def test_labels_and_probabilities_may_alternate():
    trainer = trainer_of("softmax_cross_entropy")
    x, y = data(loss="softmax_cross_entropy")
    twin = trainer_of("softmax_cross_entropy")
    for k in range(6):
        trainer.step(x, y if k % 2 else np.eye(3)[y])
        twin.step(x, y)
    np.testing.assert_allclose(trainer.net.flat, twin.net.flat, rtol=1e-12, atol=1e-14)


def test_penalties_join_loss_and_gradient_of_the_weights_alone(device):
    x, y = data()
    plain = trainer_of(device=device)
    value, gradients = plain.net.gradients(x, y, "mse")
    gradients = {n: host(gradient) for n, gradient in gradients.items()}
    trainer = trainer_of(l1=0.01, l2=0.1, device=device)
    before = {n: host(v).copy() for n, v in trainer.net.parameters().items()}
    weights = [v for n, v in before.items() if n.endswith("W")]
    penalty = sum(0.01 * np.abs(W).sum() + 0.05 * (W**2).sum() for W in weights)
    assert float(trainer.step(x, y)) == pytest.approx(value + penalty, rel=1e-14)
    for name, view in trainer.net.parameters().items():
        extra = 0.01 * np.sign(before[name]) + 0.1 * before[name] if name.endswith("W") else 0
        np.testing.assert_allclose(
            host(view), before[name] - 0.1 * (gradients[name] + extra), rtol=1e-13, atol=1e-16
        )
    assert trainer.evaluate(x, y)["loss"] == trainer.net.gradients(x, y, "mse")[0]  # evaluation counts none


@pytest.mark.parametrize("weighted", [False, True])
def test_a_divided_penalty(device, weighted):
    trainer = trainer_of(l1=0.02, l2=0.5, divide_penalty=True, device=device)
    net = Network([4, 8, 3], "tanh", dtype="float64", seed=0)
    rng = np.random.default_rng(5)
    for step in range(200 if device == "cpu" else 30):
        x, y = data(1 + step % 7, seed=step)  # the share of the penalty changes with the size of the batch
        w = rng.uniform(0, 2, len(x)) if weighted else None
        total = w.sum() if weighted else len(x)
        value, gradients = net.gradients(x, y, "mse", w)
        for name, view in net.parameters().items():
            gradient = gradients[name]
            if name.endswith("W"):
                value += (0.02 * np.abs(view).sum() + 0.25 * (view**2).sum()) / total
                gradient = gradient + (0.02 * np.sign(view) + 0.5 * view) / total
            view -= 0.1 * gradient
        assert float(trainer.step(x, y, w)) == pytest.approx(value, rel=1e-11)
        np.testing.assert_allclose(host(trainer.net.flat), net.flat, rtol=1e-10, atol=1e-13)


def test_a_divided_penalty_is_nothing_for_a_batch_that_weighs_nothing(device):
    fitted, stepped = (trainer_of(l2=0.5, divide_penalty=True, device=device) for _ in range(2))
    x, y = data(10)
    w = np.repeat([0.0, 1.0], 5)
    row = fitted.fit(x, y, epochs=1, batch_size=5, shuffle=False, sample_weight=w).rows[0]
    loss = float(stepped.step(x[5:], y[5:]))
    np.testing.assert_array_equal(host(fitted.net.flat), host(stepped.net.flat))
    assert row["loss"] + row["penalty"] == pytest.approx(loss, rel=1e-12)


def test_weight_decay_takes_the_biases_too():
    x, y = data()
    trainer = trainer_of(optimizer=SGD(0.1, weight_decay=0.5))
    trainer.net.load_parameters({n: np.ones(v.shape) for n, v in trainer.net.parameters().items()})
    _, gradients = trainer.net.gradients(x, y, "mse")
    trainer.step(x, y)
    np.testing.assert_allclose(
        trainer.net.parameters()["1.b"], 1 - 0.1 * (gradients["1.b"] + 0.5), rtol=1e-13
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_weight_two_is_the_row_twice(device, loss):
    x, y = data(9, loss=loss)
    w = np.array([1, 2, 1, 1, 2, 3, 1, 0, 1])
    weighted, repeated = (trainer_of(loss, device=device) for _ in range(2))
    for _ in range(5):
        got = float(weighted.step(x, y, w))
        expected = float(repeated.step(np.repeat(x, w, axis=0), np.repeat(y, w, axis=0)))
        assert got == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(host(weighted.net.flat), host(repeated.net.flat), rtol=1e-11, atol=1e-14)


def test_weights_of_one_step_do_not_stay_for_the_next():
    x, y = data(9)
    trainer, twin = trainer_of(), trainer_of()
    trainer.step(x, y, np.arange(9))
    twin.step(x, y, np.arange(9))
    assert trainer.step(x, y) == twin.step(x, y, np.ones(9))


@pytest.mark.parametrize(
    "schedule", [Cosine(), OneCycle(), Exponential(rate=0.9), Warmup(steps=3, after=Cosine())]
)
def test_a_schedule_drives_the_rate_of_every_step(schedule):
    x, y = data()
    trainer, net = trainer_of(schedule=schedule, total_steps=12), trainer_of().net
    for step in range(15):  # three beyond the end, where the last value holds
        _, gradients = net.gradients(x, y, "mse")
        rate = 0.1 * schedule(step, 12)
        assert trainer.lr_at(step) == rate
        for name, view in net.parameters().items():
            view -= rate * gradients[name]
        trainer.step(x, y)
        np.testing.assert_allclose(trainer.net.flat, net.flat, rtol=1e-11, atol=1e-13)


def test_a_schedule_that_needs_the_length_says_so():
    trainer = trainer_of(schedule="cosine")
    with pytest.raises(ConfigError, match="expected the length of the run; got none; pass total_steps="):
        trainer.step(*data())


def test_two_trainers_do_not_disturb_each_other():
    x, y = data()
    alone = trainer_of(optimizer=Adam(0.01))
    expected = [alone.step(x, y) for _ in range(6)]
    a, b = trainer_of(optimizer=Adam(0.01)), trainer_of(optimizer=Adam(0.05))
    got = []
    for _ in range(6):
        got.append(a.step(x, y))
        b.step(x, y)
    assert got == expected


# ---- NaN and overflow ----------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["mse", "softmax_cross_entropy", "poisson", "mae"])
@pytest.mark.parametrize("optimizer", [SGD(1e30), SGD(1e30, momentum=0.9)])
def test_overflow_names_layer_and_step_and_keeps_the_weights(loss, optimizer):
    trainer = trainer_of(loss, optimizer, dtype="float32", hidden="relu")
    x, y = data(loss=loss)
    before = None

    def until_it_overflows():
        nonlocal before
        for _ in range(10):
            before = trainer.net.flat.copy(), [s.copy() for s in trainer.slots], trainer.steps
            trainer.step(x, y)

    expected = r"training step \d+: expected finite numbers; got NaN or infinity in"
    with pytest.raises(NumericalError, match=expected) as error:
        until_it_overflows()
    message = str(error.value)
    assert f"training step {before[2] + 1}:" in message
    assert "layer 0" in message or "layer 1" in message
    assert "lower the learning rate (now 1e+30)" in message
    assert "\n" not in message
    assert np.isfinite(before[0]).all()
    assert trainer.net.flat.tobytes() == before[0].tobytes()
    for slot, old in zip(trainer.slots, before[1], strict=True):
        assert slot.tobytes() == old.tobytes()
    assert trainer.steps == before[2]


def test_the_layer_that_overflows_first_is_named():
    net = Network([gpubp.Dense(2, 2), gpubp.Dense(2, 2, "exp"), gpubp.Dense(2, 1)], dtype="float32", seed=0)
    net.load_parameters({**net.parameters(), "1.b": [100, 100]})
    with pytest.raises(NumericalError, match=r"step 1: .*in the output of layer 1 \(Dense\(2, 2, 'exp'\)\)"):
        Trainer(net, "mse", "sgd").step([[1, 2]], [1])


def test_a_gradient_that_overflows_is_named():
    net = Network([2, 2, 1], "tanh", dtype="float32", seed=0)
    parameters = {n: np.zeros(v.shape) for n, v in net.parameters().items()}
    net.load_parameters({**parameters, "1.W": [[1e25], [1e25]]})
    with pytest.raises(NumericalError, match=r"step 1: .*the gradient d[bW] of layer 0"):
        Trainer(net, "sse", "sgd").step([[1e10, 1]], [1e15])


def test_a_stopped_trainer_goes_on_with_good_data():
    trainer, twin = (
        trainer_of("mse", SGD(0.01), dtype="float32"),
        trainer_of("mse", SGD(0.01), dtype="float32"),
    )
    x, y = data()
    trainer.step(x, y)
    twin.step(x, y)
    with pytest.raises(NumericalError):
        trainer.step(x, np.full_like(y, 3e38))  # its square overflows
    assert [trainer.step(x, y) for _ in range(3)] == [twin.step(x, y) for _ in range(3)]


def test_an_update_that_overflows_the_weights_is_seen_by_the_next_step():
    x, y = data()
    trainer = trainer_of("mse", SGD(3e38), dtype="float32", hidden="relu")
    assert np.isfinite(
        trainer.step(x, 1e4 * y)
    )  # finite loss, finite gradients: nothing was wrong before the update
    assert trainer.steps == 1
    assert not np.isfinite(trainer.net.flat).all()
    found = r"training step 2: .*got NaN or infinity in parameter \d\.[Wb]; "
    with pytest.raises(NumericalError, match=found + "the weights are lost, .*load others; lower"):
        trainer.step(x, y)
    fresh = trainer_of(dtype="float32", hidden="relu")
    trainer.net.load_parameters(fresh.net.parameters())
    trainer.optimizer = fresh.optimizer
    assert trainer.step(x, y) == fresh.step(x, y)


# ---- evaluation ----------------------------------------------------------------------------------------


def test_evaluate_adds_up_in_float64():
    """Added up in float32, these losses are 3e-7 off, others more."""
    n = 400_000
    rng = np.random.default_rng(0)
    trainer = Trainer(Network([1, 1], device="cpu", seed=0), "mse", seed=0)
    x, y = rng.random((n, 1), np.float32), np.zeros((n, 1), np.float32)
    w = rng.random(n, np.float32)
    w[:5000] = 0  # a sum of 4096 of them is 0
    outputs = trainer.net.forward(x)[:, 0].astype(np.float64)
    for weights in (None, w):
        expected = np.average(outputs**2, weights=weights)
        assert trainer.evaluate(x, y, weights)["loss"] == pytest.approx(expected, rel=1e-7)


def test_evaluate_adds_up_parts(device):
    x, y = data(21)
    w = np.linspace(0, 2, 21)
    w[8:16] = 0  # a part that weighs nothing
    trainer = trainer_of(device=device)
    trainer.net.rows_of_pass = 8
    errors = np.mean((host(trainer.net.forward(x)) - y) ** 2, axis=1)
    for weights in (None, w):
        expected = np.average(errors, weights=weights)
        assert trainer.evaluate(x, y, weights)["loss"] == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize(("bad", "expected"), [(np.nan, "nan"), (1e30, "inf")])
def test_evaluate_tells_of_a_loss_that_is_not_finite(bad, expected):
    trainer = Trainer(Network([1, 1], device="cpu", seed=0), "mse", seed=0)
    outputs, y, w = np.ones((9000, 1), np.float32), np.zeros((9000, 1), np.float32), np.ones(9000, np.float32)
    outputs[5000] = bad
    assert str(evaluation.evaluate_loss(trainer.net, trainer.loss, outputs, y, w)) == expected


@pytest.mark.parametrize("loss", LOSSES)
def test_evaluate_is_the_loss_of_the_gradients_and_changes_nothing(loss):
    trainer = trainer_of(loss)
    x, y = data(loss=loss)
    w = np.random.default_rng(0).uniform(0, 1, len(x))
    before = trainer.net.flat.tobytes(), trainer.state.stats.tobytes(), trainer.state.counters.tobytes()
    scores = trainer.evaluate(x, y, w)
    assert scores["loss"] == pytest.approx(trainer.net.gradients(x, y, loss, w)[0], rel=1e-13)
    assert set(scores) == {"loss", "accuracy" if "cross_entropy" in loss or loss == "focal" else "r2"}
    assert (
        trainer.net.flat.tobytes(),
        trainer.state.stats.tobytes(),
        trainer.state.counters.tobytes(),
    ) == before


def test_metrics_by_hand():
    net = Network([gpubp.Dense(2, 2)], dtype="float64", seed=0)
    net.load_parameters({"0.W": np.eye(2), "0.b": [0, 0]})
    x = [[3, 1], [0, 2], [1, 0], [2, 5]]
    assert Trainer(net, "softmax_cross_entropy").evaluate(x, [0, 1, 1, 1])["accuracy"] == 0.75
    assert Trainer(net, "softmax_cross_entropy").evaluate(x, [0, 1, 1, 1], [1, 1, 5, 1])["accuracy"] == 3 / 8
    y = [[1, 1], [0, 1], [1, 0], [1, 0]]  # outputs above 0 count as 1, and all of a row must be right
    assert Trainer(net, "binary_cross_entropy").evaluate(x, y)["accuracy"] == 0.75
    truth = np.array(x)
    truth[0, 0] += 1
    total = ((truth - truth.mean(axis=0)) ** 2).sum(axis=0)
    assert Trainer(net, "mse").evaluate(x, truth)["r2"] == pytest.approx(np.mean([1 - 1 / total[0], 1]))


# ---- arguments -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"loss": "mze"}, ConfigError, r"unknown loss: expected one of .*; got 'mze'; did you mean 'mse'"),
        ({"loss": None}, ConfigError, r"unknown loss"),
        ({"optimizer": "adm"}, ConfigError, r"unknown optimizer: .*did you mean 'adam'"),
        ({"optimizer": Adam}, ConfigError, r"unknown optimizer"),
        ({"schedule": "cosin"}, ConfigError, r"unknown schedule.*did you mean 'cosine'"),
        ({"schedule": 3}, ConfigError, r"unknown schedule"),
        ({"l2": -1}, InputError, r"l2: expected a number of at least 0; got -1"),
        ({"l1": "x"}, InputError, r"l1: expected a number of at least 0; got 'x'"),
        ({"l2": np.nan}, InputError, r"l2: expected a number"),
        ({"l1": True}, InputError, r"l1: expected a number"),
        ({"divide_penalty": 1}, InputError, r"divide_penalty: expected True or False; got 1"),
        ({"seed": -3}, InputError, r"seed: expected None or an integer of at least 0; got -3"),
        ({"seed": "a"}, InputError, r"seed: expected None or an integer"),
        ({"total_steps": 0}, InputError, r"total_steps: expected an integer of at least 1; got 0"),
    ],
)
def test_bad_arguments_get_one_line(options, kind, message):
    with pytest.raises(kind, match=message) as error:
        Trainer(Network([4, 3], seed=0), **({"loss": "mse"} | options))
    assert "\n" not in str(error.value)


def test_numpy_numbers_are_numbers():
    trainer = trainer_of(l1=np.float32(0.5), l2=np.int64(1), total_steps=np.int64(5), seed=np.int64(3))
    assert (trainer.l1, trainer.l2) == (0.5, 1.0)


def test_plateau_alone_holds_the_rate():
    trainer = trainer_of(schedule=Plateau())
    trainer.step(*data())
    assert trainer.lr_at(1) == 0.1


def test_an_overflow_of_the_penalty_is_named():
    trainer = gpubp.Trainer(gpubp.Network([3, 2], seed=0), "mse", gpubp.SGD(0.1), l2=1e300)
    with pytest.raises(
        NumericalError, match=r"training step 1: .*the penalty of l1=0, l2=1e\+300; lower them"
    ):
        trainer.step(np.ones((4, 3)), np.ones((4, 2)))


def test_an_overflow_of_a_divided_penalty_is_named():
    net = gpubp.Network([3, 2], seed=0)
    trainer = gpubp.Trainer(net, "mse", gpubp.SGD(0.1), l2=1e300, divide_penalty=True)
    with pytest.raises(
        NumericalError, match=r"training step 1: .*the penalty of l1=0, l2=1e\+300; lower them"
    ):
        trainer.step(np.ones((4, 3)), np.ones((4, 2)))


def test_parameters_that_overflowed_are_not_written(tmp_path):
    trainer = gpubp.Trainer(gpubp.Network([3, 2], seed=0), "mse", gpubp.SGD(0.1))
    trainer.save(tmp_path / "m.safetensors")
    before = (tmp_path / "m.safetensors").read_bytes()
    trainer.net.flat[0] = np.nan
    with pytest.raises(NumericalError, match=r"m\.safetensors: expected finite parameters"):
        trainer.save(tmp_path / "m.safetensors")
    assert (tmp_path / "m.safetensors").read_bytes() == before
