"""What follows NaN or infinity in a step: stop, skip or rollback, in `step` and in replays, on every device."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest

from gpubp import Network, Trainer
from gpubp.errors import ConfigError, NumericalError
from gpubp.kernels.replay import SKIPPED
from gpubp.optimizers import SGD, Adam
from gpubp.training import epochs as loop
from gpubp.training.policy import MOST_ROLLBACKS

N, BATCH = 40, 8
HUGE = 3e38  # finite, and its square is not


def data():
    rng = np.random.default_rng(0)
    return rng.standard_normal((N, 4)).astype("float32"), rng.standard_normal((N, 2)).astype("float32")


def trainer_of(device, on_nan, optimizer=None, **options):
    net = Network([4, 6, 2], "tanh", device=device, seed=0)
    return Trainer(net, "mse", optimizer or Adam(0.01), seed=1, on_nan=on_nan, **options)


def host(trainer):
    return np.array(trainer.host_parameters())


def poisoned(*rows):
    """The data with targets that are finite and whose loss is not."""
    x, y = data()
    y[list(rows)] = HUGE
    return x, y


@pytest.mark.parametrize("chunks", [1e-9, 0.05], ids=["one step at a time", "many steps in a call"])
def test_a_skipped_batch_is_as_one_that_was_never_there(device, chunks, monkeypatch):
    monkeypatch.setattr(loop, "CHUNK_SECONDS", chunks)
    trainer, twin = trainer_of(device, "skip"), trainer_of(device, "stop")
    x, y = poisoned(2 * BATCH + 3)
    with pytest.warns(RuntimeWarning, match="training step") as told:
        history = trainer.fit(x, y, epochs=3, batch_size=BATCH, shuffle=False)
    assert [str(one.message).split(":")[0] for one in told] == [
        f"training step {5 * k + 3}" for k in range(3)
    ]
    assert all(re.search("layer 1 .*; the batch is left out", str(one.message)) for one in told)
    assert history["skipped"] == [1, 1, 1]
    for _epoch in range(3):
        for k in (0, 1, 3, 4):
            rows = slice(k * BATCH, (k + 1) * BATCH)
            twin.step(x[rows], y[rows])
    assert host(trainer).tobytes() == host(twin).tobytes()
    assert (trainer.steps, trainer.counter(SKIPPED)) == (15, 3)


def test_schedules_count_the_batches_that_are_left_out(device):
    seen = {}
    for on_nan, (x, y) in (("skip", poisoned(BATCH)), ("stop", data())):
        trainer = trainer_of(device, on_nan, SGD(1e-3), schedule="cosine")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            history = trainer.fit(x, y, epochs=4, batch_size=BATCH, shuffle=False)
        seen[on_nan] = (history["lr"], float(trainer.net.backend.to_host(trainer.state.hyper)[0]))
    assert seen["skip"] == seen["stop"]


def test_the_short_last_batch_is_skipped_too(device):
    trainer = trainer_of(device, "skip")
    x, y = poisoned(N - 1)
    with pytest.warns(RuntimeWarning, match="training step 3: .* left out"):
        history = trainer.fit(x, y, epochs=1, batch_size=16, shuffle=False)
    assert (history["skipped"], trainer.steps) == ([1], 3)
    assert np.isfinite(host(trainer)).all()


def test_batches_of_windows_are_skipped(device):
    x, y = poisoned(11)
    found = []
    for limit in (None, 2 * 2 * BATCH * 4 * (4 + 2)):
        trainer = trainer_of(device, "skip")
        with pytest.warns(RuntimeWarning, match="training step 2: .* left out"):
            trainer.fit(x, y, epochs=1, batch_size=BATCH, shuffle=False, max_device_bytes=limit)
        found.append(host(trainer).tobytes())
    assert found[0] == found[1]


def test_an_epoch_names_three_batches_and_counts_the_rest(device):
    trainer = trainer_of(device, "skip")
    x, y = poisoned(*range(0, N - BATCH, BATCH))
    with pytest.warns(RuntimeWarning, match="NaN|left out") as told:
        history = trainer.fit(x, y, epochs=1, batch_size=BATCH, shuffle=False)
    assert len(told) == 4
    assert str(told[-1].message) == "epoch 1: 4 of 5 batches are left out"
    assert history["skipped"] == [4]


def test_an_epoch_of_bad_batches_alone_is_an_error(device):
    trainer = trainer_of(device, "skip")
    before = host(trainer)
    with (
        pytest.warns(RuntimeWarning, match="left out"),
        pytest.raises(NumericalError, match=r"epoch 1: .*all 5"),
    ):
        trainer.fit(*poisoned(*range(N)), epochs=3, batch_size=BATCH)
    assert host(trainer).tobytes() == before.tobytes()


def test_rollback_goes_back_and_learns_more_slowly(device):
    """Weights that a large rate sends beyond float32 are where it begins; a smaller one is fine."""
    trainer = trainer_of(device, "rollback", SGD(3e37))
    x, y = data()
    with (
        pytest.warns(
            RuntimeWarning, match="rolled back to the beginning of epoch 1, the learning rate is now"
        ) as told,
        pytest.raises(
            NumericalError, match=f"and so after {MOST_ROLLBACKS} rollbacks; the weights are those"
        ),
    ):
        trainer.fit(100 * x, 1e4 * y, epochs=2, batch_size=BATCH)
    assert len(told) == MOST_ROLLBACKS
    assert trainer.optimizer.lr == 3e37 / 2**MOST_ROLLBACKS
    twin = trainer_of(device, "stop")
    assert host(trainer).tobytes() == host(twin).tobytes()
    assert trainer.steps == 0


def test_training_goes_on_with_the_rate_that_a_rollback_leaves(device):
    """Bit for bit a run with that rate from the start."""
    x, y = data()
    trainer = trainer_of(device, "rollback", SGD(1e5, momentum=0.9))
    with pytest.warns(RuntimeWarning, match="rolled back to the beginning of epoch 1") as told:
        history = trainer.fit(1e3 * x, y, epochs=1, batch_size=BATCH, shuffle=False)
    assert len(history) == 1
    assert trainer.optimizer.lr == 1e5 / 2 ** len(told)
    twin = trainer_of(device, "stop", SGD(trainer.optimizer.lr, momentum=0.9))
    twin.fit(1e3 * x, y, epochs=1, batch_size=BATCH, shuffle=False)
    assert host(trainer).tobytes() == host(twin).tobytes()
    assert np.isfinite(host(trainer)).all()


def test_a_rollback_is_as_if_the_epoch_had_not_begun(device):
    """Weights, optimizer and step counter: the rest is bit for bit a run with that rate from that epoch on."""
    x, y = data()
    trainer, twin = trainer_of(device, "rollback"), trainer_of(device, "stop")
    seen = []

    def poison_once(inner, row):
        if row["epoch"] == 1 and not seen:
            seen.append(inner)
            source = inner.net.parameters()["1.b"]
            hold.append(np.array(inner.net.backend.to_host(source)))
            inner.net.backend.write(source, np.full(2, HUGE))
            inner.net.store()

    hold = []
    # The weights of the beginning of epoch 2 are the poisoned ones: the policy goes back to them, and gives up.
    with pytest.warns(RuntimeWarning, match="epoch 2"), pytest.raises(NumericalError, match="rollbacks"):
        trainer.fit(x, y, epochs=2, batch_size=BATCH, shuffle=False, callbacks=[poison_once])
    assert trainer.steps == 5
    trainer.net.backend.write(trainer.net.parameters()["1.b"], hold[0])
    trainer.net.store()
    twin.fit(x, y, epochs=1, batch_size=BATCH, shuffle=False)
    assert host(trainer).tobytes() == host(twin).tobytes()
    for mine, theirs in zip(trainer.slots, twin.slots, strict=True):
        to_host = trainer.net.backend.to_host
        assert to_host(mine).tobytes() == to_host(theirs).tobytes()
    for each in (trainer, twin):
        each.optimizer = Adam(1e-3)
        each.fit(x, y, epochs=1, batch_size=BATCH, shuffle=False)
    assert host(trainer).tobytes() == host(twin).tobytes()


def test_stop_is_what_happens_where_nothing_is_said(device):
    assert (
        trainer_of(device, "stop").on_nan == Trainer(Network([4, 2], device=device), "mse").on_nan == "stop"
    )
    with pytest.raises(ConfigError, match="unknown on_nan: expected one of stop, skip, rollback; got 'halt'"):
        trainer_of(device, "halt")


@pytest.mark.parametrize("on_nan", ["skip", "rollback"])
def test_a_step_by_hand(device, on_nan):
    trainer, twin = trainer_of(device, on_nan), trainer_of(device, "stop")
    x, y = data()
    trainer.step(x, y)
    twin.step(x, y)
    with pytest.warns(RuntimeWarning, match="training step 2: .* layer 1 ") as told:
        loss = trainer.step(*poisoned(0))
    assert not np.isfinite(float(loss))
    assert len(told) == 1
    assert float(twin.step(x, y)) == float(trainer.step(x, y)) or on_nan == "rollback"
    if on_nan == "skip":
        assert host(trainer).tobytes() == host(twin).tobytes()
        assert trainer.steps == twin.steps + 1
    else:
        assert (trainer.optimizer.lr, trainer.steps) == (0.005, 2)


@pytest.mark.parametrize("on_nan", ["skip", "rollback"])
def test_weights_that_are_lost_are_an_error_in_a_step(device, on_nan):
    trainer = trainer_of(device, on_nan)
    trainer.net.backend.write(trainer.net.parameters()["0.W"], np.full((4, 6), np.nan))
    with pytest.raises(NumericalError, match=r"parameter 0\.W; the weights are lost"):
        trainer.step(*data())


def test_the_policy_and_its_rate_are_in_the_checkpoint(device, tmp_path):
    trainer = trainer_of(device, "rollback")
    with pytest.warns(RuntimeWarning, match="the learning rate is now 0.005"):
        trainer.step(*poisoned(0))
    trainer.save(tmp_path / "a.safetensors")
    again = Trainer.load(tmp_path / "a.safetensors", device=device)
    assert (again.on_nan, again.optimizer.lr) == ("rollback", 0.005)
