"""A population's members are what separate runs make them: parameters, losses, histories, each stop."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import host

from gpubp import (
    SGD,
    Adam,
    Dense,
    Dropout,
    EarlyStopping,
    Lion,
    Muon,
    Network,
    Population,
    PopulationTrainer,
    Trainer,
)
from gpubp.backend.cpu import CpuBackend
from gpubp.errors import ConfigError, InputError
from gpubp.population import epochs as epochs_module
from gpubp.schedules import Plateau, Warmup
from gpubp.training.interrupt import Interrupt

LAYERS = [4, 8, 3]
rng = np.random.default_rng(0)
X, Y = rng.standard_normal((50, 4)), rng.uniform(0, 1, (50, 3))
LABELS = X[:, :3].argmax(axis=1)
W = rng.uniform(0.1, 2, (5, 50))


def population(size=3, device="cpu", layers=LAYERS, dtype="float64"):
    return Population(layers, "tanh", size=size, seeds=10, device=device, dtype=dtype)


def separate(k, loss, optimizer, device="cpu", layers=LAYERS, dtype="float64", **options):
    """Member k's trainer, on its own."""
    net = Network(layers, "tanh", seed=10 + k, device=device, dtype=dtype)
    return Trainer(net, loss, optimizer, seed=20 + k, **options)


def same(together, alone):
    """Parameters, slots and histories of two trainers: bit for bit on a CPU."""
    found = [[trainer.net.flat, *trainer.slots, trainer.state.hyper] for trainer in (together, alone)]
    bound = 0 if together.net.backend.name == "cpu" else 1e-6
    for mine, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(host(mine), host(theirs), rtol=bound, atol=bound)
    assert together.history.stopped == alone.history.stopped
    assert len(together.history) == len(alone.history) == together.epoch
    assert (together.steps, together.total_steps) == (alone.steps, alone.total_steps)
    for mine, theirs in zip(together.history, alone.history, strict=True):
        assert set(mine) == set(theirs) - {"val_r2", "val_accuracy"}
        for name in set(mine) & {"epoch", "loss", "penalty", "lr", "val_loss"}:
            assert mine[name] == pytest.approx(theirs[name], rel=bound, abs=0), name


# ---- equal to separate runs ------------------------------------------------------------------------------


@settings(max_examples=min(8, settings.default.max_examples))  # fewer where the GPU is simulated
@given(
    size=st.sampled_from([1, 2, 5]),
    n=st.integers(1, 40),
    batch=st.integers(9, 60),
    dtype=st.sampled_from(["float32", "float64"]),
    loss=st.sampled_from(["softmax_cross_entropy", "mse"]),
    weighted=st.booleans(),
    shuffle=st.booleans(),
)
def test_members_are_their_separate_runs(device, size, n, batch, dtype, loss, weighted, shuffle):
    y = LABELS if loss == "softmax_cross_entropy" else Y
    optimizers = [Adam(0.01 * (k + 1), weight_decay=0.1 * k) for k in range(size)]
    l2 = [0.01 * k for k in range(size)]
    trainer = PopulationTrainer(
        population(size, device, dtype=dtype), loss, optimizers, l2=l2, schedule="cosine", seeds=20
    )
    weights = W[:size, :n] if weighted else None
    arguments = {"epochs": 2, "batch_size": batch, "shuffle": shuffle, "validation": (X, y)}
    trainer.fit(X[:n], y[:n], sample_weight=weights, **arguments)
    for k, together in enumerate(trainer):
        alone = separate(k, loss, optimizers[k], device, dtype=dtype, l2=l2[k], schedule="cosine")
        w = None if weights is None else weights[k]
        alone.fit(X[:n], y[:n], sample_weight=w, **arguments)
        same(together, alone)


def test_what_else_a_trainer_is_given():
    layers = [Dense(4, 8, "gelu"), Dropout(0.3), Dense(8, 3)]
    optimizers, clip = [SGD(0.1), SGD(0.1), SGD(0.05)], [None, 0.01, 0.02]
    trainer = PopulationTrainer(
        population(3, layers=layers), "mse", optimizers, clip_norm=clip, l1=1e-3, seeds=20
    )
    trainer.fit(X, Y, epochs=3, batch_size=16)
    for k, together in enumerate(trainer):
        alone = separate(k, "mse", optimizers[k], layers=layers, clip_norm=clip[k], l1=1e-3)
        alone.fit(X, Y, epochs=3, batch_size=16)
        same(together, alone)


@pytest.mark.parametrize("optimizer", [Muon(0.02), Lion(1e-3)], ids=["muon", "lion"])
def test_other_optimizers_and_groups_of_parameters(optimizer):
    groups = [None, {"*.b": {"weight_decay": 0.0}, "0.*": {"lr_factor": 0.1}}, {"1.W": {"lr_factor": 3.0}}]
    given = {"epochs": 3, "batch_size": 16, "validation": (X, LABELS)}
    loss, layers = "softmax_cross_entropy", [4, 8, 6, 3]
    trainer = PopulationTrainer(
        population(3, layers=layers), loss, optimizer, groups=groups, clip_norm=0.5, seeds=20
    )
    trainer.fit(X, LABELS, **given)
    for k, together in enumerate(trainer):
        alone = separate(k, loss, optimizer, layers=layers, groups=groups[k], clip_norm=0.5)
        alone.fit(X, LABELS, **given)
        same(together, alone)
        assert together.groups == (groups[k] or {})


def test_folds(device):
    """Cross-validation: each member is trained on its rows and judged by the others, of other numbers too."""
    folds = np.array_split(np.random.default_rng(1).permutation(50), 3)
    rest = [np.setdiff1d(np.arange(50), fold) for fold in folds]
    assert {len(rows) for rows in rest} == {33, 34}
    trainer = PopulationTrainer(population(3, device), "softmax_cross_entropy", seeds=20)
    trainer.fit(X, LABELS, epochs=2, batch_size=16, rows=rest, validation_rows=folds, sample_weight=W[0])
    for k, together in enumerate(trainer):
        alone, inside, outside = separate(k, "softmax_cross_entropy", "adam", device), rest[k], folds[k]
        held_out = (X[outside], LABELS[outside], W[0][outside])
        weights = W[0][inside]
        alone.fit(
            X[inside], LABELS[inside], epochs=2, batch_size=16, sample_weight=weights, validation=held_out
        )
        same(together, alone)


def test_each_member_stops_by_itself(device):
    optimizers, patience = [Adam(rate) for rate in (2.0, 1e-3, 0.5)], [1, 2, 2]
    trainer = PopulationTrainer(population(3, device), "softmax_cross_entropy", optimizers, seeds=20)
    arguments = {"epochs": 6, "batch_size": 30, "validation": (X[30:], LABELS[30:])}
    histories = trainer.fit(X[:30], LABELS[:30], early_stopping=patience, **arguments)
    assert [history.stopped for history in histories] == ["early stopping", "finished", "early stopping"]
    assert [len(history) for history in histories] == [3, 6, 5]
    for k, together in enumerate(trainer):
        alone = separate(k, "softmax_cross_entropy", optimizers[k], device)
        alone.fit(X[:30], LABELS[:30], early_stopping=patience[k], **arguments)
        same(together, alone)
        assert together.evaluate(*arguments["validation"])["loss"] == min(together.history["val_loss"])


def test_a_second_fit_goes_on():
    trainer = PopulationTrainer(population(2), "mse", schedule=["plateau", None], seeds=20)
    for _ in range(2):
        trainer.fit(X, Y, epochs=2, batch_size=20)
    for k, together in enumerate(trainer):
        alone = separate(k, "mse", "adam", schedule=["plateau", None][k])
        for _ in range(2):
            alone.fit(X, Y, epochs=2, batch_size=20)
        same(together, alone)


def test_chunks_of_a_step_and_epochs_of_other_lengths(monkeypatch):
    monkeypatch.setattr(epochs_module, "CHUNK_SECONDS", 0.0)  # a chunk then is one step of each
    trainer = PopulationTrainer(population(2), "mse", seeds=20)
    rows = [range(10), range(45)]
    trainer.fit(X, Y, epochs=2, batch_size=10, rows=rows)
    for k, together in enumerate(trainer):
        alone = separate(k, "mse", "adam")
        alone.fit(X[rows[k]], Y[rows[k]], epochs=2, batch_size=10)
        same(together, alone)


def test_smoothed_targets_and_constrained_weights():
    layers, smoothing = [Dense(4, 8, "tanh", max_norm=0.5), Dense(8, 3)], [0.0, 0.2]
    trainer = PopulationTrainer(
        population(2, layers=layers), "softmax_cross_entropy", label_smoothing=smoothing, seeds=20
    )
    trainer.fit(X, LABELS, epochs=2, batch_size=16, validation=(X, LABELS))
    for k, together in enumerate(trainer):
        more = {"layers": layers, "label_smoothing": smoothing[k]}
        alone = separate(k, "softmax_cross_entropy", "adam", **more)
        alone.fit(X, LABELS, epochs=2, batch_size=16, validation=(X, LABELS))
        same(together, alone)


def test_the_average_of_the_weights_is_each_members_own(device):
    decays = [0.9, None, 0.5]
    given = {"epochs": 5, "batch_size": 16, "validation": (X, Y)}
    trainer = PopulationTrainer(population(3, device), "mse", Adam(0.2), ema=decays, seeds=20)
    trainer.fit(X, Y, early_stopping=[1, 5, 50], **given)
    for k, (together, patience) in enumerate(zip(trainer, [1, 5, 50], strict=True)):
        alone = separate(k, "mse", Adam(0.2), device, ema=decays[k])
        alone.fit(X, Y, early_stopping=patience, **given)
        same(together, alone)  # the average is among the slots
        assert together.ema == decays[k]
        assert together.evaluate(X, Y)["loss"] == pytest.approx(min(together.history["val_loss"]), rel=1e-12)
    for _ in range(2):  # and on from there, by the average again
        trainer.fit(X, Y, **given)
    own, average = host(trainer[0].net.flat), host(trainer[0].average)
    assert np.abs(own - average).max() > 1e-4
    assert trainer.evaluate(X, Y)[0]["loss"] == trainer[0].history["val_loss"][-1]


@pytest.mark.parametrize(
    ("ema", "message"), [(1.0, "ema: expected None or a number"), ([0.9], "a list of 2")]
)
def test_a_decay_that_does_not_fit(ema, message):
    with pytest.raises(InputError, match=message):
        PopulationTrainer(population(2), "mse", ema=ema)


@pytest.mark.parametrize("warm_up", [False, True])
def test_a_schedule_that_watches_the_loss_is_each_members_own(warm_up):
    def make():
        watching = Plateau(factor=0.5, patience=0)
        return Warmup(steps=2, after=watching) if warm_up else watching

    schedule, optimizers = make(), [Adam(2.0), Adam(1e-4)]
    trainer = PopulationTrainer(population(2), "mse", optimizers, schedule=schedule, seeds=20)
    trainer.fit(X, Y, epochs=4, batch_size=20)
    for k, together in enumerate(trainer):
        alone = separate(k, "mse", optimizers[k], schedule=make())
        alone.fit(X, Y, epochs=4, batch_size=20)
        same(together, alone)
        assert together.schedule.state() == alone.schedule.state()
    assert schedule.state() == make().state()


def test_a_schedule_that_ends_before_one_member_does():
    trainer = PopulationTrainer(population(2), "mse", schedule="cosine", total_steps=8, seeds=20)
    before, given = trainer.population.forward(X), {"batch_size": 10, "rows": [range(10), range(45)]}
    with pytest.raises(ConfigError, match=r"total_steps: expected at least 10, .*; got 8, where schedule"):
        trainer.fit(X, Y, epochs=2, **given)
    np.testing.assert_array_equal(trainer.population.forward(X), before)
    trainer.fit(X, Y, epochs=1, **given)
    assert [one.steps for one in trainer] == [1, 5]
    with pytest.raises(ConfigError, match=r"total_steps: expected at least 10, "):  # this time too
        trainer.fit(X, Y, epochs=1, **given)
    warming = [None, Warmup(steps=8)]
    trainer = PopulationTrainer(population(2), "mse", schedule=warming, total_steps=8, seeds=20)
    with pytest.raises(
        ConfigError, match=r"Warmup steps: expected fewer than the 8 updates of the run; got 8"
    ):
        trainer.fit(X, Y, epochs=1, **given)
    assert [one.steps for one in trainer] == [0, 0]


def test_validation_of_many_rows_is_that_of_evaluate():
    x, y = np.tile(X, (90, 1)), np.tile(LABELS, 90)
    trainer = PopulationTrainer(population(2), "softmax_cross_entropy", seeds=20)
    histories = trainer.fit(X, LABELS, epochs=2, validation=(x, y))
    assert [one["loss"] for one in trainer.evaluate(x, y)] == [one["val_loss"][-1] for one in histories]


def test_without_a_pointer_into_blas_members_take_turns():
    trainer = PopulationTrainer(population(2, CpuBackend(plain=True)), "mse", seeds=20)
    trainer.fit(X, Y, epochs=2, batch_size=20, validation=(X, Y))
    for k, together in enumerate(trainer):
        alone = separate(k, "mse", "adam", CpuBackend(plain=True))
        alone.fit(X, Y, epochs=2, batch_size=20, validation=(X, Y))
        same(together, alone)


# ---- what ends a member, and what ends a fit --------------------------------------------------------------


def test_a_member_that_overflows_stops_and_the_others_do_not(device):
    rates = [1e-2, 1e200, 1e-2]
    trainer = PopulationTrainer(population(3, device), "mse", [SGD(rate) for rate in rates], seeds=20)
    with pytest.warns(RuntimeWarning, match=r"^member 1: training step \d+: expected finite .* no further$"):
        histories = trainer.fit(X, Y, epochs=2, batch_size=25, validation=(X, Y), early_stopping=5)
    assert [history.stopped for history in histories] == ["finished", "not finite", "finished"]
    assert np.isfinite(host(trainer[1].net.flat)).all()
    for k in (0, 2):
        alone = separate(k, "mse", SGD(1e-2), device)
        alone.fit(X, Y, epochs=2, batch_size=25, validation=(X, Y), early_stopping=5)
        same(trainer[k], alone)
    trainer[1].optimizer = SGD(1e-2)
    trainer[1].net.initialize(0)  # the weights of its last step are finite, and huge
    assert trainer.fit(X, Y, epochs=1)[1].stopped == "finished"


def test_a_signal_ends_a_fit_and_the_next_one_trains(monkeypatch):
    """Even a member whose last step was stopped, and not yet looked at."""
    trainer, y = PopulationTrainer(population(2), "mse", seeds=20), Y.copy()
    y[0] = 1e200
    with monkeypatch.context() as patch:
        patch.setattr(epochs_module, "catch_interrupt", Pressed)
        histories = trainer.fit(X, y, epochs=3, batch_size=10, rows=[range(9), range(9, 30)])
    assert [(len(history), history.stopped) for history in histories] == [(0, "interrupted")] * 2
    before = [net.flat.copy() for net in trainer.population]
    histories = trainer.fit(X, Y, epochs=1, batch_size=10)
    assert [(len(history), history.stopped) for history in histories] == [(1, "finished")] * 2
    assert not any(np.array_equal(net.flat, old) for net, old in zip(trainer.population, before, strict=True))


class Pressed:
    """A Ctrl-C that came before the first batch."""

    def __enter__(self):
        interrupt = Interrupt()
        interrupt.requested = True
        return interrupt

    def __exit__(self, *error):
        """Nothing is caught."""


# ---- a population is its networks --------------------------------------------------------------------------


def test_members_are_networks(tmp_path):
    together = population(3)
    alone = [Network(LAYERS, "tanh", seed=10 + k, dtype="float64") for k in range(3)]
    np.testing.assert_array_equal(together.forward(X), [net.forward(X) for net in alone])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(together)).forward(X), together.forward(X))
    assert repr(together).startswith("Population of 3: Network([Dense(4, 8, 'tanh')")
    members = Population.of(alone)
    assert (len(members), members[1], list(members)) == (3, alone[1], alone)
    assert len({net.flat.tobytes() for net in Population(LAYERS, size=3)}) == 3
    trainer = PopulationTrainer(together, "mse", seeds=0)
    trainer.fit(X, Y, epochs=1)
    trainer[2].save(tmp_path / "two.safetensors")
    loaded = Trainer.load(tmp_path / "two.safetensors")
    np.testing.assert_array_equal(loaded.net.flat, together[2].flat)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: population(0), "size: expected an integer of at least 1; got 0"),
        (lambda: Population(LAYERS, size=3, seeds=[1, 2]), "seeds: .* list of 3.*; got 2"),
        (lambda: Population(LAYERS, size=3, seeds=-1), "seeds: expected .* got -1"),
        (lambda: Population(LAYERS, size=2, seeds=[1, -1]), "seed: expected .* got -1"),
        (lambda: Population(LAYERS, size=3, seeds=np.array(1.5)), r"seeds: expected .* got array\(1\.5\)"),
        (lambda: Population.of([]), "networks: expected at least one"),
        (lambda: Population.of(Network([4, 3])), "networks: expected a list of networks; got Network"),
        (lambda: Population.of(3), "networks: expected a list of networks; got 3"),
        (lambda: Population.of([Network([4, 3]), 7]), r"networks\[1\]: expected a Network; got 7"),
        (
            lambda: Population.of([Network([4, 3]), Network([4, 5, 3])]),
            r"networks\[1\]: .* layers, dtype and",
        ),
        (lambda: Population.of([Network([4, 3])] * 2), "each of them once"),
        (lambda: PopulationTrainer(Network([4, 3]), "mse"), "population: expected a Population; got Network"),
        (lambda: PopulationTrainer(population(), "mse", [Adam(), Adam()]), "optimizer: .* list of 3.* got 2"),
        (lambda: PopulationTrainer(population(), "mse", l2=[0.1] * 4), "l2: .* list of 3, .* got 4"),
        (lambda: PopulationTrainer(population(), "mse", l2=[0.1, -1, 0]), "l2: .* at least 0; got -1"),
        (lambda: PopulationTrainer(population(), "mse", seeds=[1]), "seeds: .* list of 3.* got 1"),
        (lambda: PopulationTrainer(population(), "mse", groups=[{}]), "groups: .* list of 3.* got 1"),
        (
            lambda: PopulationTrainer(population(), "mse", groups={"9.*": {}}),
            "groups.*got one that matches none",
        ),
    ],
)
def test_a_population_that_cannot_be(make, words):
    with pytest.raises((InputError, ConfigError), match=words) as raised:
        make()
    assert "\n" not in str(raised.value)


def test_seeds_that_follow_an_integer_of_numpy():
    mine, theirs = (Population(LAYERS, "tanh", size=3, seeds=seeds) for seeds in (np.array(10), 10))
    np.testing.assert_array_equal(mine.forward(X), theirs.forward(X))


@pytest.mark.parametrize("options", [{"accumulate": 2}, {"on_nan": "skip"}])
def test_what_a_trainer_takes_and_a_population_does_not(options):
    with pytest.raises(TypeError, match=f"unexpected keyword argument {next(iter(options))!r}"):
        PopulationTrainer(population(), "mse", **options)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rows": [[0, 1]]}, "rows: expected a list of 2 arrays .* got 1 member"),
        ({"rows": [[0], [50]]}, r"rows\[1\]: expected row numbers from 0 to 49; got 50"),
        ({"rows": [[0], [-1]]}, r"rows\[1\]: .* got -1"),
        ({"rows": [[0], []]}, r"rows\[1\]: expected a vector of integers"),
        ({"rows": [[0], [[1], [2, 3]]]}, r"rows\[1\]: expected a vector of integers"),
        ({"rows": 5}, "rows: expected a list of 2 arrays .* got 5"),
        ({"rows": np.array(3)}, r"rows: expected a list of 2 arrays .* got array\(3\)"),
        ({"sample_weight": np.ones((3, 50))}, r"sample_weight: .* \(50,\) or \(2, 50\), .* got \(3, 50\)"),
        ({"sample_weight": -np.ones((2, 50))}, "sample_weight"),
        ({"sample_weight": [[1], [1, 2]]}, "sample_weight"),
        ({"validation": X}, "validation: expected .*pass a tuple"),
        ({"validation": (X, Y), "validation_rows": [[0], [1]]}, "validation: expected one of .* got both"),
        ({"validation": (X[:, :2], Y)}, "validation x: expected 4 features"),
        ({"early_stopping": 2}, "early_stopping: expected validation data"),
        ({"early_stopping": [2, 3, 4], "validation": (X, Y)}, "early_stopping: .* list of 2.* got 3"),
        ({"epochs": 0}, "epochs: expected an integer of at least 1; got 0"),
    ],
)
def test_a_fit_that_cannot_be_says_so_and_trains_nothing(arguments, words):
    trainer = PopulationTrainer(population(2), "mse", seeds=20)
    before = trainer.population.forward(X)
    with pytest.raises((InputError, ConfigError), match=words) as raised:
        trainer.fit(X, Y, **arguments)
    assert "\n" not in str(raised.value)
    np.testing.assert_array_equal(trainer.population.forward(X), before)
    assert [trainer.steps for trainer in trainer] == [0, 0]


def test_an_early_stopping_object_watches_one_member():
    stopping = EarlyStopping(2, min_delta=0.5)
    trainer = PopulationTrainer(population(2), "mse", seeds=20)
    histories = trainer.fit(X, Y, epochs=9, validation=(X, Y), early_stopping=stopping)
    assert [len(history) for history in histories] == [3, 3]
    assert stopping.parameters is None
    assert trainer[0].early_stopping is not trainer[1].early_stopping
