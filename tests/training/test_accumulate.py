"""Trainer(accumulate=k): k micro-batches are the whole batch to rounding, in every way of a step, in less memory."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import host, torch_twin

import gpubp
from gpubp import Dense, Dropout, LayerNorm, Network, Trainer
from gpubp.backend.cpu import CpuBackend
from gpubp.errors import ConfigError, InputError, NumericalError, StorageError
from gpubp.optimizers import SGD, Adam, Lion, Muon
from gpubp.storage import load_tensors, save_tensors
from gpubp.training import find_learning_rate
from gpubp.training.micro import sizes_of

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((53, 4)), RNG.integers(0, 3, 53)
W = RNG.uniform(0, 2, 53)
W[5:20] = 0  # whole micro-batches that weigh nothing
LOSS = "softmax_cross_entropy"


def trainer_of(k, layers=(4, 8, 3), loss=LOSS, device="cpu", dtype="float64", optimizer=None, **options):
    net = Network(list(layers), "tanh", dtype=dtype, device=device, seed=0)
    return Trainer(net, loss, optimizer or Adam(0.01), seed=3, accumulate=k, **options)


def same(mine, theirs, bound=1e-12):
    for a, b in zip((mine.net.flat, *mine.slots), (theirs.net.flat, *theirs.slots), strict=True):
        np.testing.assert_allclose(host(a), host(b), rtol=bound, atol=bound)
    for name in ("loss", "penalty")[: 1 + bool(mine.l1 or mine.l2)]:
        assert mine.history[name] == pytest.approx(theirs.history[name], rel=bound)


# ---- equal to the whole batch ----------------------------------------------------------------------------


@settings(max_examples=min(40, settings.default.max_examples))
@given(
    k=st.integers(1, 20),
    batch=st.integers(1, 20),
    loss=st.sampled_from([LOSS, "mse", "huber"]),
    weights=st.lists(st.sampled_from([0.0, 1e-3, 1.0, 1e30]), min_size=20, max_size=20),
)
def test_a_step_is_that_of_the_whole_batch(k, batch, loss, weights):
    weights[0] = weights[0] or float(not sum(weights[:batch]))  # something of a batch has to weigh
    ends = []
    for parts in (1, k):
        trainer = trainer_of(
            parts, loss=loss, optimizer=SGD(0.5), clip_norm=0.3, l2=0.01, divide_penalty=True
        )
        value = float(trainer.step(X[:batch], Y[:batch] if loss == LOSS else X[:batch, :3], weights[:batch]))
        ends.append((value, trainer.net.flat, trainer.net.flat_gradients, trainer.state.stats))
    for mine, theirs in zip(*ends, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("k", [2, 3, 16])
def test_all_that_a_step_may_be_asked_for(device, k):
    """Dropout drops the same, in batches of 16 and in the last one of 5, in every place of a batch."""
    layers = [Dropout(0.2), Dense(4, 8, max_norm=0.9), LayerNorm(8, "tanh"), Dropout(0.5), Dense(8, 3)]
    options = {
        "l2": 1e-3,
        "l1": 1e-3,
        "clip_value": 0.1,
        "clip_norm": 0.2,
        "ema": 0.9,
        "label_smoothing": 0.1,
    }
    ends = [trainer_of(parts, layers, device=device, schedule="cosine", **options) for parts in (1, k)]
    for trainer in ends:
        trainer.fit(X, Y, epochs=3, batch_size=16, sample_weight=W)
    same(*ends, bound=1e-11)


@pytest.mark.parametrize(
    "optimizer", [Muon(0.02), Lion(1e-3), Adam(0.01, weight_decay=0.1)], ids=lambda o: o.name
)
@pytest.mark.parametrize(
    "groups", [None, {"*.b": {"weight_decay": 0.0}, "1.*": {"lr_factor": 0.3}}], ids=["", "groups"]
)
def test_beside_every_way_of_an_update(optimizer, groups):
    ends = [trainer_of(parts, (4, 8, 6, 3), optimizer=optimizer, groups=groups) for parts in (1, 3)]
    for trainer in ends:
        trainer.fit(X, Y, epochs=3, batch_size=16, sample_weight=W)
    same(*ends, bound=1e-9)  # Muon enlarges what is rounded in small singular values


def test_in_float32_too():
    ends = [trainer_of(parts, dtype="float32") for parts in (1, 4)]
    for trainer in ends:
        trainer.fit(X, Y, epochs=3, batch_size=16, sample_weight=W)
    same(*ends, bound=2e-5)


def test_captured_steps_are_single_ones_bit_for_bit():
    layers = [Dropout(0.2), Dense(4, 8, "gelu"), Dropout(0.5), Dense(8, 3)]
    many, single = (trainer_of(3, layers, l2=1e-3) for _ in range(2))
    many.fit(X, Y, epochs=2, batch_size=16, shuffle=False)
    for _ in range(2):
        for first in range(0, len(X), 16):
            single.step(X[first : first + 16], Y[first : first + 16])
    np.testing.assert_array_equal(many.net.flat, single.net.flat)


@pytest.mark.parametrize("plain", [False, True])
def test_by_one_thread_and_two_and_by_python(plain):
    ends = []
    before = gpubp.get_threads()
    try:
        for threads in (1, 2):
            gpubp.set_threads(2)  # pieces follow from it, and stay
            layers = [Dense(4, 256, "tanh"), LayerNorm(256), Dense(256, 3)]
            trainer = trainer_of(3, layers, device=CpuBackend(plain=plain))
            trainer.step(X[:49], Y[:49])
            gpubp.set_threads(threads)
            for _ in range(5):
                trainer.step(X[:49], Y[:49])
            ends.append(trainer.net.flat)
    finally:
        gpubp.set_threads(before)
    np.testing.assert_array_equal(*ends)


def test_one_micro_batch_has_the_launches_and_bits_of_before():
    ends = [Trainer(trainer_of(1).net, LOSS, Adam(0.01), seed=3), trainer_of(1)]
    for trainer in ends:
        trainer.fit(X, Y, epochs=2, batch_size=16)
    np.testing.assert_array_equal(ends[0].net.flat, ends[1].net.flat)
    names = [[row.name for row in trainer.explain(16, repeats=1).rows] for trainer in ends]
    assert names[0] == names[1]
    assert not [name for name in names[1] if "micro-batch" in name]
    assert ends[1]._gradient_mean is None


def test_launches_of_two_micro_batches():
    rows = trainer_of(2).explain(8, repeats=1).rows
    n = trainer_of(2).net.flat.size
    assert [row.name for row in rows if row.scope == "accumulate"] == [
        f"first micro-batch {n}",
        f"last micro-batch {n}",
    ]
    assert [row.name for row in rows].count("gather 4x4") == 2


@pytest.mark.oracle
def test_as_pytorch_accumulates(torch):
    """200 steps of three micro-batches of unlike weight, against backward() of each and one step of its optimizer."""
    trainer = trainer_of(3)
    model = torch_twin(torch, trainer.net)
    theirs = torch.optim.Adam(model.parameters(), lr=0.01)
    loss_of = torch.nn.CrossEntropyLoss(reduction="none")
    for step in range(200):
        rng = np.random.default_rng(step)
        x, y, w = rng.standard_normal((24, 4)), rng.integers(0, 3, 24), rng.uniform(0.1, 2, 24)
        theirs.zero_grad()
        total = 0.0
        for first in range(0, 24, 8):
            rows = slice(first, first + 8)
            each = loss_of(model(torch.from_numpy(x[rows])), torch.from_numpy(y[rows]))
            part = (torch.from_numpy(w[rows]) * each).sum() / w.sum()
            part.backward()
            total += part.item()
        theirs.step()
        assert trainer.step(x, y, w) == pytest.approx(total, rel=1e-10)
    for k, layer in enumerate(model[::2]):
        found = trainer.net.parameters()[f"{k}.W"]
        np.testing.assert_allclose(found, layer.weight.detach().numpy().T, rtol=1e-9, atol=1e-12)


# ---- memory ----------------------------------------------------------------------------------------------


def bytes_of_a_fit(k, batch, widths=(8, 256, 256, 3)):
    ops = CpuBackend()
    ops.cache_bytes = None  # it would take fewer rows at a time by itself
    trainer = trainer_of(k, widths, device=ops)
    x, y = np.zeros((batch, 8)), np.zeros(batch, np.int64)
    before = ops.memory().allocated
    peak = []
    trainer.fit(x, y, epochs=1, batch_size=batch, callbacks=[lambda *_: peak.append(ops.memory().peak)])
    return peak[0] - before


@pytest.mark.parametrize("batch", [4096, 4099])
def test_activations_take_the_memory_of_one_micro_batch(batch):
    whole, halves, eighths = (bytes_of_a_fit(k, batch) for k in (1, 2, 8))
    assert halves < 0.56 * whole
    assert eighths < 0.2 * whole


@pytest.mark.parametrize(("batch", "parts"), [(1, 1), (7, 3), (8, 4), (3, 5), (100, 7)])
def test_micro_batches_differ_by_one_row(batch, parts):
    sizes = sizes_of(batch, parts)
    assert sum(sizes) == batch
    assert len(sizes) == min(batch, parts)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] - sizes[-1] in (0, 1)


# ---- files -----------------------------------------------------------------------------------------------


def test_a_resumed_run_ends_with_the_same_bytes(tmp_path):
    whole, half = (trainer_of(3, [Dense(4, 8), Dropout(0.5), Dense(8, 3)]) for _ in range(2))
    whole.fit(X, Y, epochs=4, batch_size=16)
    half.fit(X, Y, epochs=2, batch_size=16)
    half.save(tmp_path / "half.safetensors")
    again = Trainer.load(tmp_path / "half.safetensors", device="cpu")
    assert again.accumulate == 3
    again.fit(X, Y, epochs=2, batch_size=16)
    for mine, theirs in zip((again.net.flat, *again.slots), (whole.net.flat, *whole.slots), strict=True):
        assert mine.tobytes() == theirs.tobytes()


def test_files_without_it_are_as_they_were(tmp_path):
    path = tmp_path / "a.safetensors"
    trainer_of(1).save(path)
    tensors, metadata = load_tensors(path, sealed=True)
    assert "accumulate" not in metadata["config"]
    assert Trainer.load(path, device="cpu").accumulate == 1
    trainer_of(2).save(path)
    tensors, metadata = load_tensors(path, sealed=True)
    metadata["config"] = metadata["config"].replace('"accumulate": 2', '"accumulate": 0')
    save_tensors(path, tensors, metadata)
    with pytest.raises(StorageError, match=r"config\.accumulate: expected an integer of at least 1"):
        Trainer.load(path, device="cpu")


# ---- what is not finite, and what is not right ------------------------------------------------------------


@pytest.mark.parametrize(("by", "row"), [("fit", 17), ("fit", 31), ("step", 18)])
def test_a_micro_batch_that_overflows_is_found_and_left_out(device, by, row):
    """Targets that are finite and whose loss is not, in the first or last micro-batch of the second batch."""
    x, y = RNG.standard_normal((32, 4)), RNG.standard_normal((32, 3))
    y[row] = 1e200
    trainer = trainer_of(4, loss="mse", device=device, optimizer=SGD(0.1))

    def steps():
        for first in (0, 16):
            float(trainer.step(x[first : first + 16], y[first : first + 16]))

    train = steps if by == "step" else lambda: trainer.fit(x, y, epochs=1, batch_size=16, shuffle=False)
    with pytest.raises(NumericalError, match=r"^training step 2: expected finite .* the loss mse, behind"):
        train()
    ends = []
    for rows in (32, 16):
        trainer = trainer_of(4, loss="mse", device=device, optimizer=SGD(0.1), on_nan="skip")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            trainer.fit(x[:rows], y[:rows], epochs=2, batch_size=16, shuffle=False)
        ends.append(trainer)
    same(*ends, bound=0 if device == "cpu" else 1e-12)


def test_a_norm_that_overflows_is_named():
    x, y = np.ones((8, 4)), np.full((8, 3), 1e10)
    x[:4] = 1e150  # in the first of two micro-batches
    trainer = trainer_of(2, (4, 3), loss="half_sse", clip_norm=1.0)
    trainer.net.load_parameters({"0.W": np.zeros((4, 3)), "0.b": np.zeros(3)})
    with pytest.raises(NumericalError, match="the norm of the gradients, each of which is finite"):
        trainer.step(x, y)


@pytest.mark.parametrize("k", [0, -1, 1.5, "2", None, True, np.nan])
def test_a_number_of_micro_batches_that_is_none(k):
    with pytest.raises(InputError, match=r"^accumulate: expected an integer of at least 1; got [^\n]*$"):
        trainer_of(k)


def test_more_micro_batches_than_examples():
    trainer = trainer_of(17)
    before = trainer.net.flat.copy()
    with pytest.raises(
        ConfigError, match=r"^accumulate: expected at most batch_size=16 micro-.*; got 17; lower"
    ):
        trainer.fit(X, Y, epochs=1, batch_size=16)
    np.testing.assert_array_equal(trainer.net.flat, before)
    trainer.fit(X[:5], Y[:5], epochs=1, batch_size=32)  # few rows are taken one by one


def test_a_sweep_of_learning_rates_accumulates_too():
    sweeps = [find_learning_rate(trainer_of(k), X, Y, steps=20, batch_size=16, seed=0) for k in (1, 4)]
    np.testing.assert_allclose(sweeps[0].losses, sweeps[1].losses, rtol=1e-9)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_the_estimators_take_it():
    options = {
        "hidden_layer_sizes": (8,),
        "batch_size": 16,
        "max_iter": 3,
        "random_state": 0,
        "device": "cpu",
    }
    ends = [gpubp.MLPClassifier(accumulate=k, **options).fit(X, Y) for k in (1, 3)]
    np.testing.assert_allclose(ends[0].coefs_[0], ends[1].coefs_[0], rtol=1e-10)
    assert ends[1].coefs_[0].tobytes() != ends[0].coefs_[0].tobytes()
    ends[0].set_params(accumulate=4).partial_fit(X, Y)
    assert ends[0]._engine.trainer.accumulate == 4
    with pytest.raises(ValueError, match=r"MLPRegressor: accumulate: expected an integer of at least 1"):
        gpubp.MLPRegressor(accumulate=0).fit(X, X)
    with pytest.raises(ValueError, match=r"^accumulate: expected at most batch_size=16"):
        gpubp.MLPRegressor(accumulate=17, **options).fit(X, X)
    with pytest.raises(ValueError, match=r"^accumulate: expected at most batch_size=16"):
        gpubp.MLPRegressor(accumulate=17, **options).partial_fit(X, X)
    gpubp.MLPRegressor(accumulate=17, **options | {"batch_size": "auto"}).partial_fit(X[:5], X[:5])
    with pytest.raises(ValueError, match=r"accumulate: expected solver='adam' or 'sgd' beside it"):
        gpubp.MLPClassifier(accumulate=2, solver="lbfgs").fit(X, Y)
