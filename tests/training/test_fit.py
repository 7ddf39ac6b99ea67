"""Trainer.fit: order, batches, weights, validation, early stopping, callbacks, schedules, Ctrl-C and NaN."""

import os
import signal
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import host

from gpubp import Network, Trainer
from gpubp.errors import ConfigError, InputError, NumericalError
from gpubp.optimizers import SGD, Adam
from gpubp.schedules import Plateau, Warmup
from gpubp.training import EarlyStopping, progress
from gpubp.training import epochs as loop
from gpubp.training.step import Step


def data(n=70, seed=0, labels=True):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 4))
    return x, (rng.integers(0, 3, n) if labels else rng.standard_normal((n, 3)))


def trainer_of(
    optimizer=None, loss="softmax_cross_entropy", dtype="float64", seed=7, device="cpu", **options
):
    net = Network([4, 8, 3], "tanh", dtype=dtype, device=device, seed=0)
    return Trainer(net, loss, optimizer or SGD(0.1), seed=seed, **options)


def by_hand(trainer, x, y, epochs, batch, w=None, orders=None):
    """The same epochs through Trainer.step; the losses that fit reports."""
    losses = []
    for epoch in range(epochs):
        order = np.arange(len(x)) if orders is None else orders[epoch]
        total = weight = 0.0
        for start in range(0, len(x), batch):
            rows = order[start : start + batch]
            share = len(rows) if w is None else w[rows].sum()
            total += share * float(trainer.step(x[rows], y[rows], None if w is None else w[rows]))
            weight += share
        losses.append(total / weight)
    return losses


# ---- order and batches ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(n=st.integers(1, 60), batch=st.integers(1, 70), weighted=st.booleans(), labels=st.booleans())
def test_fit_makes_the_steps_that_step_makes(device, dtype, n, batch, weighted, labels):
    x, y = data(n, labels=labels)
    x = x.astype(dtype)
    y = y if labels else y.astype(dtype)
    w = np.random.default_rng(1).uniform(0.5, 2, n).astype(dtype) if weighted else None
    loss = "softmax_cross_entropy" if labels else "huber"
    fitted, stepped = (trainer_of(Adam(0.01), loss, dtype, device=device) for _ in range(2))
    history = fitted.fit(x, y, epochs=3, batch_size=batch, shuffle=False, sample_weight=w)
    losses = by_hand(stepped, x, y, 3, min(batch, n), w)
    assert host(fitted.net.flat).tobytes() == host(stepped.net.flat).tobytes()
    assert history["loss"] == pytest.approx(losses, rel=1e-6 if dtype == "float32" else 1e-13)
    assert fitted.steps == stepped.steps == 3 * -(-n // min(batch, n))  # the last, short batch is one of them
    assert history["epoch"] == [1, 2, 3]
    assert history.stopped == "finished"


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle", "step", None])
def test_schedules_give_fit_the_rates_that_step_takes(schedule):
    x, y = data()
    fitted, stepped = (trainer_of(schedule=schedule, total_steps=35 if k else None) for k in range(2))
    history = fitted.fit(x, y, epochs=7, batch_size=16, shuffle=False)
    by_hand(stepped, x, y, 7, 16)
    assert fitted.net.flat.tobytes() == stepped.net.flat.tobytes()
    assert history["lr"] == [stepped.lr_at(5 * epoch) for epoch in range(7)]
    assert schedule is None or len(set(history["lr"])) > 1


def test_the_seed_fixes_the_order():
    x, y = data()
    runs = [trainer_of(seed=seed) for seed in (1, 1, 2)]
    losses = [trainer.fit(x, y, epochs=3, batch_size=16)["loss"] for trainer in runs]
    assert runs[0].net.flat.tobytes() == runs[1].net.flat.tobytes()
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_shuffling_takes_every_example_once_in_the_order_of_the_generator():
    x, y = data()
    fitted, stepped = trainer_of(seed=5), trainer_of()
    fitted.fit(x, y, epochs=4, batch_size=16)
    rng = np.random.default_rng(5)
    by_hand(stepped, x, y, 4, 16, orders=[rng.permutation(len(x)) for _ in range(4)])
    assert fitted.net.flat.tobytes() == stepped.net.flat.tobytes()


def test_chunks_of_any_length_make_the_same_steps(monkeypatch):
    x, y = data(300)
    found = []
    for seconds in (1e-9, 1e-4, 1e9):
        monkeypatch.setattr(loop, "CHUNK_SECONDS", seconds)
        trainer = trainer_of()
        trainer.fit(x, y, epochs=4, batch_size=8)
        found.append(trainer.net.flat.tobytes())
    assert len(set(found)) == 1


def test_chunks_on_a_device_that_runs_behind_grow_by_doubling(monkeypatch):
    """A launch returns at once: from its seconds alone the third chunk would be the whole epoch."""
    chunks, run = [], Step.run
    trainer = trainer_of()
    monkeypatch.setattr(type(trainer.net.backend), "asynchronous", True)
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 1e9)
    monkeypatch.setattr(Step, "run", lambda step, times: (chunks.append(times), run(step, times))[1])
    x, y = data(300)
    trainer.fit(x, y, epochs=1, batch_size=8, shuffle=False)
    assert chunks == [1, 1, 2, 4, 8, 16, 5, 1]  # 37 steps of 8 examples, one of 4


def test_a_second_fit_goes_on():
    x, y = data()
    once, twice = trainer_of(Adam(0.01)), trainer_of(Adam(0.01))
    once.fit(x, y, epochs=5, batch_size=16)
    twice.fit(x, y, epochs=2, batch_size=16)
    history = twice.fit(x, y, epochs=3, batch_size=16)
    assert once.net.flat.tobytes() == twice.net.flat.tobytes()
    assert history["epoch"] == [1, 2, 3, 4, 5]


def test_weight_two_is_the_row_twice():
    x, y = data(20)
    w = np.arange(20) % 3
    weighted, repeated = trainer_of(), trainer_of()
    a = weighted.fit(x, y, sample_weight=w, epochs=4, batch_size=1000, shuffle=False)
    b = repeated.fit(np.repeat(x, w, axis=0), np.repeat(y, w), epochs=4, batch_size=1000, shuffle=False)
    assert a["loss"] == pytest.approx(b["loss"], rel=1e-12)
    np.testing.assert_allclose(weighted.net.flat, repeated.net.flat, rtol=1e-11, atol=1e-14)


def test_a_row_of_the_history():
    history = trainer_of(l2=0.1).fit(*data(), epochs=1, batch_size=16, validation=data(seed=1))
    (row,) = history
    assert list(row) == [
        "epoch",
        "loss",
        "penalty",
        "lr",
        "seconds",
        "samples_per_s",
        "tflops",
        "val_loss",
        "val_accuracy",
    ]
    assert all(np.isfinite(list(row.values())))
    (plain,) = trainer_of().fit(*data(), epochs=1, batch_size=16)
    assert list(plain) == ["epoch", "loss", "lr", "seconds", "samples_per_s", "tflops"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(
    l1=st.sampled_from([0.0, 0.02]),
    l2=st.sampled_from([0.0, 0.3]),
    batch=st.integers(1, 70),
    weighted=st.booleans(),
    divide=st.booleans(),
)
def test_the_loss_of_an_epoch_is_that_of_its_data(dtype, l1, l2, batch, weighted, divide):
    x, y = data(labels=False)
    w = np.random.default_rng(1).uniform(0.5, 2, len(x)) if weighted else None
    options = {"l1": l1, "l2": l2, "divide_penalty": divide}
    still = trainer_of(SGD(0.0), "mse", dtype, **options)  # it does not move: every step sees one loss
    row = still.fit(
        x, y, epochs=1, batch_size=batch, sample_weight=w, validation=(x, y) if w is None else (x, y, w)
    ).rows[0]
    rel = 1e-5 if dtype == "float32" else 1e-12
    assert row["loss"] == pytest.approx(row["val_loss"], rel=rel)
    weights = [view for name, view in still.net.parameters().items() if name.endswith("W")]
    penalty = sum(l1 * np.abs(W).sum() + l2 / 2 * (W**2).sum() for W in weights)
    if divide:  # by the weight of each batch, and each batch counts by its weight
        penalty *= -(-len(x) // batch) / (len(x) if w is None else w.sum())
    assert row.get("penalty", 0.0) == pytest.approx(penalty, rel=rel)
    assert ("penalty" in row) == bool(l1 or l2)
    # and with what step returns, the loss before each update with the penalty in it
    fitted, stepped = (trainer_of(SGD(0.1), "mse", dtype, **options) for _ in range(2))
    history = fitted.fit(x, y, epochs=3, batch_size=batch, shuffle=False, sample_weight=w)
    losses = by_hand(stepped, x, y, 3, batch, w)
    assert [row["loss"] + row.get("penalty", 0.0) for row in history] == pytest.approx(losses, rel=rel)


class Clock:
    """Seconds that pass as a test says: a step that is captured takes 100, 99 of them to compile, a replayed one 1."""

    def __init__(self, monkeypatch):
        self.now = self.compiling = 0.0
        run = Step.run

        def timed(step, times):
            captured = step.recording is None
            run(step, times)
            self.now += 100 * captured + (times - captured)
            self.compiling += 99 * captured

        monkeypatch.setattr(Step, "run", timed)
        monkeypatch.setattr(loop, "compile_seconds", lambda: self.compiling)
        for module in (loop, progress):
            monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: self.now))


def test_throughput_leaves_the_captured_steps_out(monkeypatch):
    Clock(monkeypatch)
    trainer = trainer_of()
    first, second = trainer.fit(*data(), epochs=2, batch_size=16)  # 4 full batches and one of 6
    assert (first["seconds"], second["seconds"]) == (203, 5)
    assert (first["samples_per_s"], second["samples_per_s"]) == (48 / 3, 70 / 5)
    assert first["tflops"] == 48 / 3 * trainer.flops_per_sample / 1e12


@pytest.mark.parametrize(("batch", "seconds", "rest"), [(70, 100, 1), (40, 200, 2)])
def test_throughput_leaves_compiling_out_where_every_step_is_captured(monkeypatch, batch, seconds, rest):
    Clock(monkeypatch)
    first, second = trainer_of().fit(*data(), epochs=2, batch_size=batch)
    assert (first["seconds"], first["samples_per_s"]) == (seconds, 70 / rest)
    assert (second["seconds"], second["samples_per_s"]) == (rest, 70 / rest)


def test_time_left_leaves_the_captured_steps_out(monkeypatch, capsys):
    Clock(monkeypatch)
    trainer_of().fit(
        *data(64), epochs=3, batch_size=16, progress=True
    )  # 4 steps in an epoch, one of them captured
    lines = capsys.readouterr().out.splitlines()[:3]
    assert [line.split("  ")[-1] for line in lines] == ["8s left", "4s left", "0s left"]
    assert [line.split("  ")[2] for line in lines] == ["16 samples/s"] * 3


# ---- validation and early stopping ---------------------------------------------------------------------


def test_validation_never_changes_training():
    x, y = data()
    plain, watched, weighted = trainer_of(), trainer_of(), trainer_of()
    a = plain.fit(x, y, epochs=6, batch_size=16)
    b = watched.fit(x, y, epochs=6, batch_size=16, validation=data(33, seed=1))
    weighted.fit(x, y, epochs=6, batch_size=16, validation=(*data(33, seed=1), np.arange(33)))
    assert plain.net.flat.tobytes() == watched.net.flat.tobytes() == weighted.net.flat.tobytes()
    assert a["loss"] == b["loss"]
    assert b["val_loss"][-1] == watched.evaluate(*data(33, seed=1))["loss"]


def noisy(n, seed=0):
    """Classes that x tells, but for noise: the validation loss falls first and rises later."""
    x, _ = data(n, seed)
    return x, (x[:, :3] + np.random.default_rng(seed + 100).standard_normal((n, 3))).argmax(axis=1)


def test_early_stopping_restores_the_best_weights(device):
    x, y = noisy(20)
    trainer, seen = trainer_of(SGD(1.0), device=device), []
    history = trainer.fit(
        x, y, epochs=400, batch_size=20, validation=noisy(50, seed=1), early_stopping=5,
        callbacks=[lambda t, row: seen.append(host(t.net.flat).copy())],
    )  # fmt: skip
    best = int(np.argmin(history["val_loss"]))
    assert history.stopped == "early stopping"
    assert len(history) == best + 1 + 5
    assert best > 0
    assert host(trainer.net.flat).tobytes() == seen[best].tobytes()
    assert trainer.evaluate(*noisy(50, seed=1))["loss"] == min(history["val_loss"])


def test_a_second_fit_begins_to_wait_anew_but_a_loaded_one_goes_on(tmp_path):
    x, y = noisy(20)
    trainer = trainer_of()
    trainer.fit(x, y, epochs=2, validation=noisy(50, seed=1), early_stopping=9)
    trainer.save(tmp_path / "t.safetensors")
    first = trainer.early_stopping
    trainer.fit(x, y, epochs=1, validation=noisy(50, seed=1), early_stopping=9)
    assert trainer.early_stopping is not first
    loaded = type(trainer).load(tmp_path / "t.safetensors")
    kept = loaded.early_stopping
    loaded.fit(x, y, epochs=1, validation=noisy(50, seed=1), early_stopping=9)
    assert loaded.early_stopping is kept


def test_early_stopping_restores_them_when_the_epochs_run_out():
    trainer = trainer_of(SGD(1.0))
    history = trainer.fit(*noisy(20), epochs=200, validation=noisy(50, seed=1), early_stopping=1000)
    assert history.stopped == "finished"
    assert trainer.evaluate(*noisy(50, seed=1))["loss"] == min(history["val_loss"]) < history["val_loss"][-1]


def test_min_delta_counts_small_gains_as_none():
    stopping = EarlyStopping(patience=2, min_delta=0.1)
    flat = np.zeros(1)
    assert [stopping.observe(v, flat) for v in (1.0, 0.95, 0.85, 0.8, 0.79)] == [
        False,
        False,
        False,
        False,
        True,
    ]
    assert stopping.best == 0.85


def test_callbacks_see_the_epoch_and_may_end_training():
    seen = []
    trainer = trainer_of()

    def watch(inner, row):
        seen.append((inner is trainer, row["epoch"], inner.epoch, inner.steps))
        return None if row["epoch"] < 3 else True

    history = trainer.fit(*data(), epochs=10, batch_size=16, callbacks=[watch, lambda t, row: "not True"])
    assert seen == [(True, 1, 1, 5), (True, 2, 2, 10), (True, 3, 3, 15)]
    assert history.stopped == "callback"
    assert len(history) == 3


@pytest.mark.parametrize("validated", [True, False])
def test_plateau_lowers_the_rate_by_the_losses_it_sees(validated):
    schedule, reference = (
        Plateau(factor=0.5, patience=1, threshold=0.05),
        Plateau(factor=0.5, patience=1, threshold=0.05),
    )
    trainer = trainer_of(SGD(0.5), schedule=schedule)
    history = trainer.fit(*data(), epochs=25, batch_size=16, validation=data(seed=1) if validated else None)
    expected = []
    for loss in history["val_loss" if validated else "loss"]:
        expected.append(0.5 * reference(0, 1))
        reference.observe(loss)
    assert history["lr"] == expected
    assert len(set(expected)) > 2


# ---- Ctrl-C --------------------------------------------------------------------------------------------


def test_ctrl_c_in_a_callback_ends_after_the_epoch_and_keeps_the_model():
    before = signal.getsignal(signal.SIGINT)
    trainer, twin = trainer_of(), trainer_of()

    def press(inner, row):
        if row["epoch"] == 2:
            signal.raise_signal(signal.SIGINT)

    history = trainer.fit(*data(), epochs=50, batch_size=16, callbacks=[press])
    assert history.stopped == "interrupted"
    assert len(history) == 2
    assert signal.getsignal(signal.SIGINT) is before
    twin.fit(*data(), epochs=2, batch_size=16)
    assert trainer.net.flat.tobytes() == twin.net.flat.tobytes()
    trainer.fit(
        *data(), epochs=3, batch_size=16
    )  # no permutation was lost: training goes on as if nothing had been
    twin.fit(*data(), epochs=3, batch_size=16)
    assert trainer.net.flat.tobytes() == twin.net.flat.tobytes()


def test_ctrl_c_in_the_last_callback_is_not_forgotten():
    history = trainer_of().fit(
        *data(), epochs=1, callbacks=[lambda t, row: signal.raise_signal(signal.SIGINT)]
    )
    assert history.stopped == "interrupted"
    assert len(history) == 1


@pytest.mark.parametrize(("at", "epochs"), [(1, 0), (3, 0), (4, 1), (7, 1), (8, 2)])
def test_ctrl_c_in_the_last_batch_of_an_epoch_ends_after_a_whole_epoch(monkeypatch, at, epochs):
    run = Step.run

    def press(step, times):
        run(step, times)
        if step.trainer.steps == at:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Step, "run", press)
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 1e-9)  # one step at a time
    trainer = trainer_of()
    history = trainer.fit(*data(64), epochs=5, batch_size=16, validation=data(30, seed=1))
    assert history.stopped == "interrupted"
    assert (trainer.steps, trainer.epoch, len(history)) == (at, epochs, epochs)


@pytest.mark.skipif(not hasattr(os, "kill") or os.name == "nt", reason="Windows raises no SIGINT by os.kill")
def test_ctrl_c_inside_an_epoch_ends_after_the_batch():
    x, y = data(20_000)
    trainer = trainer_of()

    def press():
        while trainer.steps == 0:
            time.sleep(1e-3)
        os.kill(os.getpid(), signal.SIGINT)

    finger = threading.Thread(target=press)
    finger.start()
    history = trainer.fit(x, y, epochs=200, batch_size=1)
    finger.join()
    assert history.stopped == "interrupted"
    assert 0 < trainer.steps < 200 * 20_000
    assert len(history) == trainer.epoch == trainer.steps // 20_000
    twin = trainer_of()  # the model is that of the steps that were made, none of them cut in two
    rng = np.random.default_rng(7)
    order = np.concatenate([rng.permutation(20_000) for _ in range(trainer.epoch + 1)])[: trainer.steps]
    for k in order:
        twin.step(x[k : k + 1], y[k : k + 1])
    assert trainer.net.flat.tobytes() == twin.net.flat.tobytes()


def test_a_second_ctrl_c_interrupts_as_usual():
    def twice(inner, row):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        trainer_of().fit(*data(), epochs=5, callbacks=[twice])
    assert signal.getsignal(signal.SIGINT) is before


def test_fit_in_another_thread_leaves_signals_alone():
    found = []
    trainer = trainer_of()
    thread = threading.Thread(target=lambda: found.append(trainer.fit(*data(), epochs=3)))
    thread.start()
    thread.join()
    assert found[0].stopped == "finished"


# ---- NaN and overflow ----------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [SGD(1e25), SGD(1e25, momentum=0.9)])
def test_overflow_ends_training_with_finite_weights(optimizer):
    trainer = trainer_of(optimizer, "mse", "float32")
    x, y = data(labels=False)
    twin = trainer_of(optimizer, "mse", "float32")
    with pytest.raises(
        NumericalError, match=r"training step \d+: .*layer \d.*lower the learning rate \(now 1e\+25\)"
    ) as error:
        trainer.fit(x, y, epochs=50, batch_size=16, shuffle=False)
    assert np.isfinite(trainer.net.flat).all()
    assert f"training step {trainer.steps + 1}:" in str(error.value)
    for step in range(trainer.steps):  # the weights are those before the step that failed
        rows = slice(16 * (step % 5), 16 * (step % 5) + 16)
        twin.step(x[rows], y[rows])
    assert trainer.net.flat.tobytes() == twin.net.flat.tobytes()


@pytest.mark.parametrize("batch", [16, 70])  # noticed by the next step, or at the end of the epoch
def test_weights_that_overflow_go_back_to_the_beginning_of_the_epoch(batch):
    x, y = data(labels=False)
    trainer = trainer_of(SGD(0.1), "mse", "float32")
    trainer.fit(x, y, epochs=1, batch_size=batch)
    before = trainer.net.flat.copy()
    huge = Trainer(trainer.net, "mse", SGD(3e38), seed=0)
    with pytest.raises(NumericalError, match="those of the beginning of the epoch"):
        huge.fit(100 * x, 1e4 * y, epochs=3, batch_size=batch)
    assert trainer.net.flat.tobytes() == before.tobytes()


# ---- arguments -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"epochs": 0}, InputError, r"epochs: expected an integer of at least 1; got 0"),
        ({"epochs": 1.5}, InputError, r"epochs: expected an integer of at least 1; got 1.5"),
        ({"epochs": True}, InputError, r"epochs: expected an integer"),
        ({"batch_size": 0}, InputError, r"batch_size: expected an integer of at least 1; got 0"),
        ({"batch_size": "32"}, InputError, r"batch_size: expected an integer"),
        ({"validation": (1,)}, InputError, r"validation: expected \(x, y\)"),
        ({"validation": 0.2}, InputError, r"validation: expected \(x, y\)"),
        ({"validation": data()[0]}, InputError, r"validation: expected \(x, y\)"),
        (
            {"validation": (data()[0], data(9)[1])},
            InputError,
            r"^validation y: expected shape \(70,\), got \(9,\)",
        ),
        (
            {"validation": (data()[0][:, :3], data()[1])},
            InputError,
            r"^validation x: expected 4 features per row, got 3",
        ),
        (
            {"validation": (*data(), -np.ones(70))},
            InputError,
            r"^validation sample_weight: expected weights of at least 0, got -1",
        ),
        ({"early_stopping": 3}, ConfigError, r"early_stopping: expected validation data to watch; got none"),
        (
            {"early_stopping": 0, "validation": data()},
            InputError,
            r"patience: expected an integer of at least 1; got 0",
        ),
        ({"early_stopping": "yes", "validation": data()}, InputError, r"patience: expected an integer"),
        ({"callbacks": print}, InputError, r"callbacks: expected a list of functions"),
        ({"callbacks": [None]}, InputError, r"callbacks: expected a list of functions"),
        ({"sample_weight": np.ones(3)}, InputError, r"sample_weight: expected shape \(70,\), got \(3,\)"),
    ],
)
def test_bad_arguments_get_one_line(options, kind, message):
    trainer = trainer_of()
    before = trainer.net.flat.tobytes()
    with pytest.raises(kind, match=message) as error:
        trainer.fit(*data(), **({"epochs": 1} | options))
    assert "\n" not in str(error.value)
    assert trainer.net.flat.tobytes() == before


@pytest.mark.parametrize(("patience", "min_delta"), [(0, 0), (1.5, 0), (True, 0), (3, -1), (3, float("nan"))])
def test_early_stopping_arguments(patience, min_delta):
    with pytest.raises(InputError, match=r"EarlyStopping: .*expected"):
        EarlyStopping(patience, min_delta)


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle", "step", "exponential"])
def test_a_schedule_shorter_than_the_run(schedule):
    x, y = data()
    trainer = trainer_of(schedule=schedule, total_steps=35)
    trainer.fit(x, y, epochs=4, batch_size=16)
    before = trainer.net.flat.tobytes()
    with pytest.raises(ConfigError, match=r"total_steps: expected at least 40, .*; got 35, where schedule"):
        trainer.fit(x, y, epochs=4, batch_size=16)
    assert (trainer.net.flat.tobytes(), trainer.epoch, trainer.steps) == (before, 4, 20)
    trainer.fit(x, y, epochs=3, batch_size=16)


def test_a_warm_up_as_long_as_the_run():
    x, y = data()
    trainer = trainer_of(schedule=Warmup(steps=35), total_steps=35)
    with pytest.raises(
        ConfigError, match=r"Warmup steps: expected fewer than the 35 updates of the run; got 35"
    ):
        trainer.fit(x, y, epochs=7, batch_size=16)
    trainer_of(schedule=Warmup(steps=34), total_steps=35).fit(x, y, epochs=7, batch_size=16)
