"""Losses of one's own: refused where they cannot work, else the numbers of the built-in ones, in files too."""

import math
import pickle

import numpy as np
import pytest

import gpubp
from gpubp.custom import loss_from_config
from gpubp.errors import ConfigError, InputError
from gpubp.scalar import log, maximum, softplus

BINARY = {"outputs": (0, 1), "targets": (0, 1)}


def quantile(a, y):
    return maximum(0.9 * (y - a), 0.1 * (a - y))


def cross_entropy(a, y):
    return -y * log(a) - (1 - y) * log(1 - a)


@pytest.mark.parametrize(
    ("f", "options", "said"),
    [
        (lambda a, y: abs(a - y) if a > y else 0, {}, "branches on the value"),
        (lambda a, y: None, {}, "to return a number"),
        (lambda a, y: y * y, {}, "a result that depends on a"),
        (lambda a: a, {}, "a function of 2 scalars"),
        (cross_entropy, {}, "a number everywhere; got nan for a = "),
        (lambda a, y: (a - y) ** 2 * log(y), {}, "a number everywhere"),
        (lambda a, y: (a - y) ** 2, {"targets": (1, 0)}, "low < high"),
        (lambda a, y: (a - y) ** 2, {"outputs": 3}, "low < high"),
        (lambda a, y: (a - y) ** 2, {"outputs": (math.nan, 3)}, "low < high"),
        (lambda a, y: (a - y) ** 2, {"mean_over_outputs": 1}, "True or False"),
        (lambda a, y: (a - y) ** 2, {"d_f": lambda a, y: a - y}, r"derivative near .*; got .*; correct d_f"),
    ],
)  # fmt: skip
def test_a_bad_loss_is_refused_in_one_line(f, options, said):
    with pytest.raises(InputError, match=said) as caught:
        gpubp.loss(f, name="bad", **options)
    assert str(caught.value).startswith("loss 'bad': ")
    assert "\n" not in str(caught.value)


def test_names_and_plain_functions():
    with pytest.raises(ConfigError, match="no built-in one has"):
        gpubp.loss(quantile, name="mse")
    with pytest.raises(ConfigError, match=r"use gpubp\.loss\(f\)"):
        gpubp.Trainer(gpubp.Network([2, 1]), quantile)


def problem():
    rng = np.random.default_rng(0)
    return rng.standard_normal((20, 3)), rng.standard_normal((20, 2)), rng.random(20)


@pytest.mark.parametrize(("mean", "name"), [(True, "mse"), (False, "sse")])
def test_value_and_gradients_are_those_of_the_built_in_one(mean, name):
    x, y, w = problem()
    net = gpubp.Network([3, 4, 2], "tanh", dtype="float64", seed=0)
    mine = gpubp.loss(lambda a, y: (a - y) ** 2, name="squares", mean_over_outputs=mean)
    (value, gradients), (expected, theirs) = (net.gradients(x, y, loss, w) for loss in (mine, name))
    assert value == pytest.approx(expected, rel=1e-12)
    for key in theirs:
        np.testing.assert_allclose(gradients[key], theirs[key], rtol=1e-11, atol=1e-14)


def test_bounds_are_those_of_outputs_and_targets():
    x, _, _ = problem()
    mine = gpubp.loss(cross_entropy, mean_over_outputs=False, **BINARY)
    with pytest.raises(ConfigError, match="outputs from 0 to 1; got output='identity'; use output='sigmoid'"):
        gpubp.Trainer(gpubp.Network([3, 2]), mine)
    net = gpubp.Network([3, 2], output="sigmoid", dtype="float64", seed=0)
    with pytest.raises(InputError, match=r"expects targets from 0 to 1; got 1\.5 in row 2, column 0"):
        net.gradients(x, np.where(np.arange(20)[:, None] == 2, 1.5, 0.5) * [1, 0.5], mine)
    y = (x[:, :2] > 0).astype(float)
    logits = gpubp.Network([3, 2], dtype="float64", seed=0)
    value, gradients = net.gradients(x, y, mine)
    expected, theirs = logits.gradients(x, y, "binary_cross_entropy")
    assert value == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(gradients["0.W"], theirs["0.W"], rtol=1e-10, atol=1e-14)


def test_training_evaluation_and_files(tmp_path):
    x, y, _ = problem()
    mine = gpubp.loss(quantile)
    net = gpubp.Network([3, 4, 2], "tanh", dtype="float64", seed=0)
    assert gpubp.gradcheck(net, x, y, loss=mine).passed
    trainer = gpubp.Trainer(net, mine, "sgd", seed=0)
    trainer.fit(x, y, epochs=2, batch_size=20)
    trainer.save(tmp_path / "a.safetensors")
    again = gpubp.Trainer.load(tmp_path / "a.safetensors")
    assert again.loss == mine
    assert again.evaluate(x, y) == trainer.evaluate(x, y)
    error = y - net.forward(x)
    assert trainer.evaluate(x, y)["loss"] == pytest.approx(np.maximum(0.9 * error, -0.1 * error).mean())


def test_explain_draws_targets_within_the_bounds():
    from gpubp.training.explain import _targets

    rng = np.random.default_rng(0)
    for low, high in ((3, math.inf), (-math.inf, -3), (0.2, 0.4), (-math.inf, math.inf)):
        drawn = _targets(rng, (50, 2), low, high)
        assert low <= drawn.min() < drawn.max() <= high


def test_stored_losses_are_checked():
    good = gpubp.loss(quantile, targets=(-5, math.inf)).config()
    assert loss_from_config(good) == pickle.loads(pickle.dumps(gpubp.loss(quantile, targets=(-5, math.inf))))
    for change in (
        {"name": "mse"}, {"name": None}, {"l": []}, {"d_l": good["l"]}, {"targets": None}, {"targets": [1, 0]},
        {"targets": ["a", 1]}, {"outputs": [None]}, {"mean_over_outputs": 1}, {"more": 1},
    ):  # fmt: skip
        with pytest.raises((InputError, ConfigError)) as caught:
            loss_from_config(good | change)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="expected name, l, d_l"):
        loss_from_config({"name": "a"})
    assert (
        loss_from_config(gpubp.loss(lambda a, y: softplus(a) - a * y, name="mine").config()).outputs[0]
        == -math.inf
    )
