"""NaN and infinity in data, activations and gradients: found, layer and step named, the last good checkpoint kept."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
from numba import int64
from processes import train_with_the_command_line

import gpubp
from gpubp import Network, Trainer
from gpubp.backend.accesses import by_all
from gpubp.backend.launch import Launch, make_row
from gpubp.cli import main
from gpubp.errors import GpubpError, InputError, NumericalError
from gpubp.kernels.compile import cpu_kernel
from gpubp.kernels.replay import STEP
from gpubp.kernels.rows import read_row, vector
from gpubp.training.step import Step

BAD = (np.nan, np.inf, -np.inf)
N = 48


def poison(real):
    """target[i] = value in step `when` of the replay, once. Operands: target, counters, armed, value; when, i."""

    def kernel(address, me, team):
        row = read_row(address)
        target, counters = vector(row, 0, real), vector(row, 1, int64)
        armed, value = vector(row, 2, int64), vector(row, 3, real)
        if me == 0 and armed[0] != 0 and counters[STEP] == row[13]:
            armed[0] = 0
            target[row[14]] = value[0]

    return kernel


class Injection:
    """One wrong number in a recorded step: in what a layer puts out, or in its gradient, as that step replays."""

    def __init__(self, where, layer, step, value, place):
        self.where, self.layer, self.step, self.value, self.place = where, layer, step, value, place

    def into(self, recording, trainer):
        net, launches = trainer.net, recording.launches
        if self.where == "activation":
            last = max(k for k, one in enumerate(launches) if one.scope == f"layer {self.layer} forward")
            operands = launches[last].operands
            target, at = operands[2] if len(operands) == 3 else operands[0], last + 1
        else:
            layer = net.layers[self.layer]
            target = layer.dW if self.where == "dW" else layer.db
            at = min(k for k, one in enumerate(launches) if one.scope == "update")
        real = net.dtype
        self.armed, self.number = np.ones(1, np.int64), np.array([self.value], real)
        counters, kernel = trainer.state.counters, cpu_kernel(poison, real)
        operands = (target, counters, self.armed, self.number)
        row = make_row(operands, (self.step, self.place % target.size), kernel.address)
        accesses = (by_all(target, written=True), by_all(counters), by_all(self.armed, written=True))
        launches.insert(at, Launch("poison", "", row, kernel, operands, 0, 0, 0, accesses=accesses))


@pytest.fixture
def inject(monkeypatch):
    """Puts an injection into the next recording that is made."""
    waiting = []
    capture = Step._capture

    def with_injection(self):
        capture(self)
        while waiting:
            waiting.pop().into(self.recording, self.trainer)

    monkeypatch.setattr(Step, "_capture", with_injection)
    return waiting.append


def problem(rng):
    """(trainer options, x, y): a small network of random depth, widths and activation."""
    hidden = rng.integers(2, 20, rng.integers(1, 4)).tolist()
    net = Network(
        [5, *hidden, 3],
        str(rng.choice(["relu", "tanh", "gelu", "sigmoid"])),
        dtype=str(rng.choice(["float32", "float64"])),
        device="cpu",
        seed=int(rng.integers(100)),
    )
    return net, rng.standard_normal((N, 5)), rng.integers(0, 3, N)


@pytest.mark.parametrize("on_nan", ["stop", "skip", "rollback"])
def test_what_a_replay_computes_wrong_is_found_in_its_step_and_layer(on_nan, inject, tmp_path, times):
    """The number is wrong once, as of memory that failed: computing the step again would show nothing."""
    path = tmp_path / "model.safetensors"
    for seed in range(times(12, 70)):
        rng = np.random.default_rng(seed)
        net, x, y = problem(rng)
        batch = int(rng.integers(5, 20))
        per_epoch = -(-N // batch)
        trainer = Trainer(net, "softmax_cross_entropy", "adam", seed=seed, on_nan=on_nan)
        kinds = ["activation"] * (len(net.layers) > 1) + ["dW", "db"]
        where = kinds[seed % len(kinds)]
        layer = int(rng.integers(len(net.layers) - (where == "activation")))
        # of the full batches of the second epoch, whose first has been written
        step = int(per_epoch + rng.integers(N // batch))
        inject(Injection(where, layer, step, BAD[seed % 3], int(rng.integers(10**6))))
        kept = []

        def keep(inner, row, kept=kept):
            inner.save(path)
            kept.append((inner.epoch, path.read_bytes(), np.array(inner.host_parameters())))

        name = rf"training step {step + 1}: .*(layer {layer} |layer {layer},|layer {layer}\b).*suspect the memory"
        if on_nan == "stop":
            with pytest.raises(NumericalError, match=name):
                trainer.fit(x, y, epochs=3, batch_size=batch, callbacks=[keep])
            assert [epoch for epoch, *_ in kept] == [1]
        else:
            with pytest.warns(RuntimeWarning, match=name) as told:
                history = trainer.fit(x, y, epochs=3, batch_size=batch, callbacks=[keep])
            assert len(told) == 1
            assert len(history) == 3
            assert trainer.optimizer.lr == (0.001 if on_nan == "skip" else 0.0005)
        assert path.read_bytes() == kept[-1][1]
        again = Trainer.load(path, device="cpu")
        assert again.epoch == kept[-1][0]
        assert again.net.flat.tobytes() == kept[-1][2].tobytes()
        assert np.isfinite(trainer.host_parameters()).all()
        assert all(np.isfinite(slot).all() for slot in trainer.slots)


@pytest.mark.parametrize("on_nan", ["stop", "skip"])
def test_parameters_that_were_spoilt_are_named(on_nan, tmp_path, times):
    """Someone else's code wrote NaN or a number that overflows into a layer, between two epochs."""
    path = tmp_path / "model.safetensors"
    for seed in range(times(8, 40)):
        rng = np.random.default_rng(seed)
        net, x, y = problem(rng)
        trainer = Trainer(net, "softmax_cross_entropy", "sgd", seed=seed, on_nan=on_nan)
        layer, part = int(rng.integers(len(net.layers))), rng.choice(["W", "b"])
        view = net.parameters()[f"{layer}.{part}"]

        def spoil(inner, row, view=view, seed=seed):
            inner.save(path)
            if row["epoch"] == 2:
                view.reshape(-1)[seed % view.size] = BAD[seed % 3]

        named = rf"training step \d+: .*parameter {layer}\.{part}; "
        with pytest.raises(NumericalError, match=named):
            trainer.fit(x, y, epochs=4, batch_size=12, callbacks=[spoil])
        good = path.read_bytes()
        with pytest.raises(
            NumericalError, match=rf"{re.escape(str(path))}: expected finite .* the last good"
        ):
            trainer.save(path)
        assert path.read_bytes() == good
        assert Trainer.load(path, device="cpu").epoch == 2


X, Y, V = np.ones((6, 4)), np.arange(6) % 2, np.ones((6, 2))


def spoilt(array, row, value):
    array = np.array(array, float)
    array[row] = value
    return array


def net_of(outputs=2):
    return Network([4, 3, outputs], device="cpu", seed=0)


DOORS = {
    "forward": lambda row, bad: net_of().forward(spoilt(X, row, bad)),
    "forward again": lambda row, bad: [
        net.forward(x) for net in [net_of()] for x in (X, X, X, spoilt(X, row, bad))
    ],
    "gradients x": lambda row, bad: net_of().gradients(spoilt(X, row, bad), V, "mse"),
    "gradients y": lambda row, bad: net_of().gradients(X, spoilt(V, row, bad), "mse"),
    "step x": lambda row, bad: Trainer(net_of(), "mse").step(spoilt(X, row, bad), V),
    "step y": lambda row, bad: Trainer(net_of(), "mse").step(X, spoilt(V, row, bad)),
    "step w": lambda row, bad: Trainer(net_of(), "mse").step(X, V, spoilt(Y, row, bad)),
    "fit x": lambda row, bad: Trainer(net_of(), "mse", on_nan="skip").fit(spoilt(X, row, bad), V),
    "fit y": lambda row, bad: Trainer(net_of(), "mse", on_nan="rollback").fit(X, spoilt(V, row, bad)),
    "fit w": lambda row, bad: Trainer(net_of(), "mse").fit(X, V, sample_weight=spoilt(Y, row, bad)),
    "validation": lambda row, bad: Trainer(net_of(), "mse").fit(X, V, validation=(spoilt(X, row, bad), V)),
    "evaluate x": lambda row, bad: Trainer(net_of(), "mse").evaluate(spoilt(X, row, bad), V),
    "evaluate y": lambda row, bad: Trainer(net_of(), "mse").evaluate(X, spoilt(V, row, bad)),
    "classifier": lambda row, bad: gpubp.MLPClassifier(max_iter=1).fit(spoilt(X, row, bad), Y),
    "regressor": lambda row, bad: gpubp.MLPRegressor(max_iter=1).fit(X, spoilt(V, row, bad)),
    "gradcheck": lambda row, bad: gpubp.gradcheck(net_of(), spoilt(X, row, bad), V, loss="mse"),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("bad", BAD)
def test_data_are_refused_at_every_door(door, bad):
    place = r"row 4" if door not in ("classifier", "regressor") else "NaN|infinity"
    with pytest.raises((InputError, ValueError), match=place) as error:
        DOORS[door](4, bad)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf", "1e999"])
@pytest.mark.parametrize("kind", ["csv", "npz", "npy"])
def test_data_files_are_refused_by_row(kind, bad, tmp_path):
    path = tmp_path / f"a.{kind}"
    x = spoilt(X, (4, 2), float(bad))
    if kind == "csv":
        rows = "\n".join(",".join(map(str, [*row, label])) for row, label in zip(x, Y, strict=True))
        path.write_text(f"a,b,c,d,y\n{rows}\n")
        if bad == "nan":  # that is how a table says that a cell is missing
            assert gpubp.data.load(path, typed=True).x.columns[2].missing().tolist() == [False] * 4 + [
                True,
                False,
            ]
            return
    elif kind == "npz":
        np.savez(path, x=x, y=Y)
    else:
        np.save(path, x)
    with pytest.raises(GpubpError, match=r"line 6, column 'c'|row 4, column 2"):
        gpubp.data.load(path) if kind != "npy" else gpubp.data.load_features(path)


def test_a_run_that_overflows_keeps_its_last_good_epoch(tmp_path, capsys):
    """In the command line, under each policy: the run that is on disk can be gone on with."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", x=rng.standard_normal((64, 3)), y=rng.standard_normal(64))
    base = [
        str(tmp_path / "d.npz"),
        "--hidden",
        "4",
        "--schedule",
        "constant",
        "--optimizer",
        "sgd",
        "--seed",
        "0",
        "-q",
    ]
    base += ["--device", "cpu", "--activation", "identity", "--val", "0"]
    codes = {}
    for on_nan in ("stop", "skip", "rollback"):
        out = str(tmp_path / on_nan)
        with warnings.catch_warnings():
            warnings.simplefilter("always")  # which the command line prints
            codes[on_nan] = main(
                ["train", *base, "--lr", "1e4", "--epochs", "30", "--out", out, "--on-nan", on_nan]
            )
        said = capsys.readouterr().err
        assert "Traceback" not in said
        assert re.search(
            r"training step \d+: expected finite numbers; got NaN or infinity in .*layer \d", said
        )
        trainer = Trainer.load(tmp_path / on_nan / "model.safetensors", device="cpu")
        assert np.isfinite(trainer.host_parameters()).all()
        assert trainer.on_nan == on_nan
    assert codes["stop"] == 1
    assert main(["train", base[0], "--out", str(tmp_path / "stop"), "--resume", "--on-nan", "nonsense"]) == 1
    assert "unknown on_nan: expected one of stop, skip, rollback" in capsys.readouterr().err


def test_predictions_that_are_not_finite_are_no_predictions(tmp_path, capsys):
    """A run whose outputs overflow for a row says so; no line of NaN goes out."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((32, 12))
    np.savez(tmp_path / "d.npz", x=x, y=x.sum(axis=1))
    run = train_with_the_command_line(tmp_path, tmp_path / "d.npz", 4)
    x[5] = x[7] = 1.5e38
    np.savez(tmp_path / "huge.npz", x=x)
    capsys.readouterr()
    assert main(["predict", str(run), str(tmp_path / "huge.npz")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert (
        "huge.npz: row 5: expected finite outputs of the network; got NaN or infinity there and in 1 row more"
        in err
    )


def test_optimizer_state_that_overflowed_is_not_written(tmp_path):
    """A finite gradient whose square is not: Adam would never move that weight again."""
    path = tmp_path / "a.safetensors"
    trainer = Trainer(Network([2, 1], device="cpu", seed=0), "mae", "adam")
    trainer.step([[1.0, 1.0]], [[1.0]])
    trainer.save(path)
    good = path.read_bytes()
    trainer.step([[1e22, 1.0]], [[1.0]])
    assert not np.isfinite(trainer.slots[1]).all()
    with pytest.raises(NumericalError, match="optimizer"):
        trainer.save(path)
    assert path.read_bytes() == good
