"""Trainer(label_smoothing): against PyTorch, and against targets that were smoothed by hand, in every way of a step."""

import numpy as np
import pytest
from reference import host, torch_twin

import gpubp
from gpubp import Network, Trainer
from gpubp.errors import ConfigError, InputError
from gpubp.optimizers import SGD, Adam

WIDTHS, RATE = [4, 8, 3], 0.2


def data(n=24, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 4)), rng.integers(0, 3, n)


def trainer_of(loss="softmax_cross_entropy", rate=RATE, device="cpu", optimizer=None, **options):
    net = Network(WIDTHS, "tanh", dtype="float64", device=device, seed=0)
    return Trainer(net, loss, optimizer or SGD(0.5), label_smoothing=rate, seed=3, **options)


@pytest.mark.parametrize("probabilities", [False, True])
def test_as_pytorch_smooths(torch, probabilities):
    trainer = trainer_of(optimizer=Adam(0.01))
    model = torch_twin(torch, trainer.net)
    theirs = torch.optim.Adam(model.parameters(), lr=0.01)
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=RATE)
    for step in range(200):
        x, y = data(seed=step)
        if probabilities:
            y = np.random.default_rng(step).dirichlet(np.ones(3), len(x))
        loss = loss_of(model(torch.from_numpy(x)), torch.from_numpy(y))
        theirs.zero_grad()
        loss.backward()
        theirs.step()
        assert trainer.step(x, y) == pytest.approx(loss.item(), rel=1e-10)
    for k, layer in enumerate(model[::2]):
        found = trainer.net.parameters()[f"{k}.W"]
        np.testing.assert_allclose(found, layer.weight.detach().numpy().T, rtol=1e-9, atol=1e-12)


def by_hand(loss, y):
    rows = np.eye(3)[y]
    return (1 - RATE) * rows + RATE / (2 if loss == "binary_cross_entropy" else 3)


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "focal", "binary_cross_entropy"])
def test_fit_is_that_of_targets_smoothed_by_hand(device, loss):
    x, y = data(53)
    w = np.random.default_rng(1).random(53)
    smooth, plain = trainer_of(loss, device=device), trainer_of(loss, 0.0, device)
    given = np.eye(3)[y] if loss == "binary_cross_entropy" else y
    for trainer, targets in ((smooth, given), (plain, by_hand(loss, y))):
        trainer.fit(x, targets, epochs=3, batch_size=16, sample_weight=w)
    np.testing.assert_allclose(host(smooth.net.flat), host(plain.net.flat), rtol=1e-12, atol=1e-14)
    assert smooth.history["loss"] == pytest.approx(plain.history["loss"], rel=1e-12)


def test_what_is_watched_keeps_the_plain_targets():
    x, y = data()
    trainer, plain = trainer_of(), trainer_of(rate=0.0)
    plain.net.load_parameters(trainer.net.parameters())
    trainer.fit(x, y, epochs=2, batch_size=8, validation=(x, y))
    plain.net.load_parameters(trainer.net.parameters())
    assert trainer.history["val_loss"][-1] == trainer.evaluate(x, y)["loss"] == plain.evaluate(x, y)["loss"]
    assert trainer.history["loss"][-1] != pytest.approx(trainer.history["val_loss"][-1], rel=1e-3)


def test_a_smoothed_run_goes_on_where_it_stopped(tmp_path):
    x, y = data(40)
    whole, first = trainer_of(), trainer_of()
    whole.fit(x, y, epochs=4, batch_size=16)
    first.fit(x, y, epochs=2, batch_size=16)
    first.save(tmp_path / "a.safetensors")
    second = Trainer.load(tmp_path / "a.safetensors", device="cpu")
    assert second.label_smoothing == RATE
    second.fit(x, y, epochs=2, batch_size=16)
    np.testing.assert_array_equal(second.net.flat, whole.net.flat)


def test_a_step_has_one_launch_more_and_names_it():
    plain = trainer_of(rate=0.0).explain(8, repeats=1).rows
    smooth = trainer_of().explain(8, repeats=1).rows
    assert [launch.name for launch in smooth if launch.name not in [other.name for other in plain]] == [
        "smoothed targets 8x3"
    ]
    assert len(smooth) == len(plain) + 1


@pytest.mark.parametrize("rate", [-0.1, 1.0, np.nan, "a", True, None])
def test_a_rate_outside_its_range(rate):
    with pytest.raises(
        InputError, match=r"label_smoothing: expected a number of at least 0 and below 1; got "
    ):
        trainer_of(rate=rate)


def test_a_loss_without_classes():
    with pytest.raises(
        ConfigError, match=r"label_smoothing: expected a loss of classes, .* got 'mse'; leave it"
    ):
        trainer_of("mse")
    assert trainer_of("mse", 0.0).label_smoothing == 0


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_the_estimator_takes_it():
    x, _ = data(60)
    y = (x[:, 0] > 0).astype(int) + (x[:, 1] > 0)
    sure, unsure = (
        gpubp.MLPClassifier(
            (16,), label_smoothing=rate, max_iter=100, learning_rate_init=0.02, random_state=0, device="cpu"
        )
        for rate in (0.0, 0.5)
    )
    sure.fit(x, y)
    unsure.fit(x, y)
    assert sure.predict_proba(x).max(axis=1).mean() > unsure.predict_proba(x).max(axis=1).mean() + 0.1
    with pytest.raises(
        ValueError, match=r"label_smoothing: expected a number of at least 0 and below 1; got 1"
    ):
        gpubp.MLPClassifier(label_smoothing=1).fit(x, y)
    with pytest.raises(ValueError, match=r"label_smoothing: expected solver='adam' or 'sgd' beside it"):
        gpubp.MLPClassifier(label_smoothing=0.1, solver="lbfgs").fit(x, y)
