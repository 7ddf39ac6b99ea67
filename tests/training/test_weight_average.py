"""The moving average of the weights: its equation in captured steps, what goes by it, files, stops, one-line errors."""

import signal
import warnings

import numpy as np
import pytest

import gpubp
from gpubp.errors import ConfigError, InputError
from gpubp.training import epochs as loop
from gpubp.training.step import Step

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((21, 4)), RNG.integers(0, 3, 21)
DECAY, LOSS = 0.9, "softmax_cross_entropy"


def network(device="cpu", **options):
    return gpubp.Network([4, 6, 3], "tanh", dtype="float64", seed=1, device=device, **options)


def host(trainer, array):
    return np.array(trainer.net.backend.to_host(array))


def weighted(path):
    """sum (1 - d) d^(T-t) p_t / (1 - d^T) over the weights behind each update, as Adam corrects a moment."""
    factors = (1 - DECAY) * DECAY ** np.arange(len(path))[::-1]
    return (factors[:, None] * np.array(path)).sum(axis=0) / (1 - DECAY ** len(path))


def test_it_is_the_corrected_average_over_200_steps():
    trainer, path = gpubp.Trainer(network(), LOSS, gpubp.Adam(0.01), ema=DECAY), []
    for _ in range(200):
        trainer.step(X, Y)
        path.append(trainer.net.flat.copy())
        np.testing.assert_allclose(trainer.average, weighted(path), rtol=1e-12, atol=1e-14)


def test_captured_and_single_steps_agree_and_the_training_is_as_without_it(device):
    ends = []
    for ema in (DECAY, None):
        trainer = gpubp.Trainer(network(device), LOSS, gpubp.Adam(0.01), ema=ema)
        trainer.fit(X, Y, epochs=3, batch_size=8, shuffle=False)
        ends.append(trainer)
    single, path = gpubp.Trainer(network(device), LOSS, gpubp.Adam(0.01)), []
    for _ in range(3):
        for first in range(0, len(X), 8):
            single.step(X[first : first + 8], Y[first : first + 8])
            path.append(host(single, single.net.flat))
    np.testing.assert_array_equal(*(host(trainer, trainer.net.flat) for trainer in ends))
    np.testing.assert_allclose(host(ends[0], ends[0].average), weighted(path), rtol=1e-11, atol=1e-13)


def test_evaluation_validation_and_early_stopping_go_by_it():
    trainer = gpubp.Trainer(network(), LOSS, gpubp.Adam(0.3), ema=DECAY, seed=0)
    history = trainer.fit(X, Y, epochs=6, batch_size=8, validation=(X, Y), early_stopping=50)
    best = min(history["val_loss"])
    assert trainer.evaluate(X, Y)["loss"] == best
    np.testing.assert_array_equal(trainer.net.flat, trainer.average)  # both are those of the best epoch
    trainer.fit(X, Y, epochs=2, batch_size=8)
    twin = network()
    twin.load_parameters({name: view.copy() for name, view in trainer.net.views(trainer.average).items()})
    by_average = gpubp.Trainer(twin, LOSS).evaluate(X, Y)
    own = trainer.net.forward(X)
    with trainer.averaged():
        with trainer.averaged():  # once is enough
            np.testing.assert_array_equal(trainer.net.forward(X), twin.forward(X))
        assert trainer.evaluate(X, Y) == by_average
    np.testing.assert_array_equal(trainer.net.forward(X), own)
    assert trainer.evaluate(X, Y) == by_average
    assert np.abs(twin.forward(X) - own).max() > 1e-3


def test_a_resumed_run_ends_with_the_same_bytes(tmp_path):
    options = {
        "optimizer": gpubp.Lion(0.01),
        "ema": DECAY,
        "seed": 0,
        "schedule": "cosine",
        "total_steps": 12,
    }
    whole = gpubp.Trainer(network(), LOSS, **options)
    whole.fit(X, Y, epochs=4, batch_size=8)
    half = gpubp.Trainer(network(), LOSS, **options)
    half.fit(X, Y, epochs=2, batch_size=8)
    half.save(tmp_path / "half.safetensors")
    again = gpubp.Trainer.load(tmp_path / "half.safetensors", device="cpu")
    assert again.ema == DECAY
    again.fit(X, Y, epochs=2, batch_size=8)
    for mine, theirs in zip((again.net.flat, *again.slots), (whole.net.flat, *whole.slots), strict=True):
        assert mine.tobytes() == theirs.tobytes()


def test_a_batch_that_is_left_out_is_no_part_of_it(device):
    """Targets that are finite and whose loss is not, in the third of three batches; in the captured steps of a fit."""
    y, averages = RNG.standard_normal((24, 3)), []
    x = RNG.standard_normal((24, 4))
    for huge, rows in ((1e200, 24), (1.0, 16)):
        targets = y.copy()
        targets[20] *= huge
        trainer = gpubp.Trainer(network(device), "mse", gpubp.SGD(0.1), ema=DECAY, on_nan="skip")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            trainer.fit(x[:rows], targets[:rows], epochs=2, batch_size=8, shuffle=False)
        averages.append(host(trainer, trainer.average))
    np.testing.assert_array_equal(*averages)


TOO_FAST = 300.0  # with which errors of 1e151 grow until their squares are no numbers


def too_fast(trainer, row):
    """Behind the first epoch a rate with which the second one overflows, until it is halved a few times."""
    if row["epoch"] == 1:
        trainer.optimizer = gpubp.SGD(TOO_FAST, momentum=0.9)


def rolling(device="cpu", on_nan="rollback"):
    net = gpubp.Network([4, 3], dtype="float64", device=device, seed=1)
    optimizer = gpubp.SGD(0.1, momentum=0.9)
    return gpubp.Trainer(net, "mse", optimizer, ema=DECAY, on_nan=on_nan, seed=0)


FAR, IN_TURN = (X, 1e151 * X[:, :3]), {"batch_size": 8, "shuffle": False}


@pytest.mark.filterwarnings("ignore:training step:RuntimeWarning")
def test_a_rollback_takes_it_back_too(device):
    """Weights, momentum and average are those of a run that had the last rate in that epoch from its beginning."""
    trainer, twin = rolling(device), rolling(device, "stop")
    trainer.fit(*FAR, epochs=2, **IN_TURN, callbacks=[too_fast])
    rate = trainer.optimizer.lr
    assert rate < TOO_FAST
    twin.fit(*FAR, epochs=1, **IN_TURN)
    twin.optimizer = gpubp.SGD(rate, momentum=0.9)
    twin.fit(*FAR, epochs=1, **IN_TURN)
    assert_same(trainer, twin)


@pytest.mark.filterwarnings("ignore:training step:RuntimeWarning")
def test_a_signal_between_rollbacks_takes_nothing_from_it(tmp_path, monkeypatch):
    """The file has the average of the beginning of the epoch, to which the resumed run goes back."""
    whole, cut, run = rolling(), rolling(), Step.run
    whole.fit(*FAR, epochs=2, **IN_TURN, callbacks=[too_fast])

    def press(step, times):
        run(step, times)
        if step.trainer.steps == 4 and step.trainer.optimizer.lr == TOO_FAST / 4:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Step, "run", press)
        patch.setattr(loop, "CHUNK_SECONDS", 1e-9)  # one step at a time
        assert cut.fit(*FAR, epochs=2, **IN_TURN, callbacks=[too_fast]).stopped == "interrupted"
    assert (cut.position.examples, cut.position.rollbacks) == (8, 2)
    cut.save(tmp_path / "cut.safetensors")
    resumed = gpubp.Trainer.load(tmp_path / "cut.safetensors", device="cpu")
    assert resumed.optimizer.lr > whole.optimizer.lr  # it rolls back once more, or oftener
    resumed.fit(*FAR, epochs=1, **IN_TURN)
    assert_same(resumed, whole)


def assert_same(trainer, other):
    for mine, theirs in zip((trainer.net.flat, *trainer.slots), (other.net.flat, *other.slots), strict=True):
        np.testing.assert_array_equal(host(trainer, mine), host(other, theirs))
    assert trainer.history["loss"] == other.history["loss"]


def test_before_the_first_update_there_is_none():
    trainer = gpubp.Trainer(network(), LOSS, ema=DECAY)
    assert trainer.average is None
    with trainer.averaged():
        assert trainer.evaluate(X, Y) == gpubp.Trainer(network(), LOSS).evaluate(X, Y)


@pytest.mark.parametrize("decay", [-0.1, 1, 2, np.nan, "0.9", True])
def test_a_decay_out_of_range(decay):
    with pytest.raises(InputError, match="ema: expected None or a number of at least 0 and below 1; got"):
        gpubp.Trainer(network(), LOSS, ema=decay)


def test_nothing_is_trained_or_saved_by_the_average(tmp_path):
    trainer = gpubp.Trainer(network(), LOSS, ema=DECAY)
    trainer.step(X, Y)
    before = trainer.net.flat.copy()
    for call in (
        lambda: trainer.step(X, Y),
        lambda: trainer.fit(X, Y, epochs=1),
        lambda: trainer.save(tmp_path / "t.safetensors"),
    ):
        with pytest.raises(ConfigError, match="expected to be left before"), trainer.averaged():
            call()
    np.testing.assert_array_equal(trainer.net.flat, before)
