"""Batches that no cache would hold: taken in chunks going forward, in micro-batches by a step, to the same result."""

import re
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpubp import (
    BatchNorm,
    Dense,
    Dropout,
    Embedding,
    LayerNorm,
    Network,
    Population,
    PopulationTrainer,
    Residual,
    SwiGLU,
    Trainer,
)
from gpubp.backend.base import Backend
from gpubp.backend.cpu import CpuBackend
from gpubp.errors import DeviceMemoryError, InputError
from gpubp.network import rows as rows_module
from gpubp.network.rows import rows_in_cache
from gpubp.training.micro import cached_rows
from gpubp.training.room import Asked, _largest

RNG = np.random.default_rng(0)
WIDTHS = (5, 16, 16, 3)
SHIPPED = CpuBackend.cache_bytes, rows_module._FEWEST  # before the fixture


@pytest.fixture(autouse=True)
def small_cache(monkeypatch):
    """4 MiB as 4 KiB, and as few rows as there are: what takes 4096 examples otherwise is seen with 20."""
    monkeypatch.setattr(CpuBackend, "cache_bytes", 4096)
    monkeypatch.setattr("gpubp.network.rows._FEWEST", 4)


def network(*, layers=WIDTHS, dtype="float64", whole=False, plain=False):
    ops = CpuBackend(plain=plain)
    if whole:
        ops.cache_bytes = None
    return Network(list(layers), "tanh", dtype=dtype, device=ops, seed=0)


def data(n, labels=True):
    x = RNG.standard_normal((n, 5))
    return x, (RNG.integers(0, 3, n) if labels else RNG.standard_normal((n, 3)))


# ---- how many rows ---------------------------------------------------------------------------------------


@given(
    cache=st.integers(1, 2**40),
    per_row=st.integers(0, 2**24),
    weights=st.integers(0, 2**40),
)
def test_rows_fill_the_cache_or_weigh_as_much_as_the_weights(cache, per_row, weights):
    ops = CpuBackend(plain=True)
    ops.cache_bytes = cache
    rows = rows_in_cache(ops, per_row, weights)
    assert rows >= 4
    assert rows & (rows - 1) == 0
    if rows > 4:
        assert 0.7 < rows * max(per_row, 1) / max(cache, weights) < 1.42


def test_a_device_that_takes_batches_whole():
    ops = CpuBackend(plain=True)
    ops.cache_bytes = None
    assert rows_in_cache(ops, 100, 100) is None
    assert Backend.cache_bytes is None
    assert cached_rows(network(whole=True)) is None
    assert Asked(10**6, 0, 3).parts(10**6) == 3


def test_networks_of_use(monkeypatch):
    """With the cache as it is; neither small networks nor those whose weights outweigh a batch are cut."""
    monkeypatch.setattr(CpuBackend, "cache_bytes", SHIPPED[0])
    monkeypatch.setattr(rows_module, "_FEWEST", SHIPPED[1])
    for layers, batch, dtype, chunk, parts in (
        ((54, 256, 256, 256, 256, 7), 4096, "float64", 512, 8),
        ((54, 256, 256, 256, 256, 7), 4096, "float32", 1024, 8),
        ((784, 512, 512, 10), 128, "float32", 1024, 1),
        ((784, 2048, 2048, 2048, 10), 1024, "float32", 2048, 1),
        ((8, 32, 32, 1), 32, "float64", 4096, 1),
    ):
        net = network(layers=layers, dtype=dtype)
        assert net.rows_of_pass == chunk
        assert Asked(batch, 0, 1, cached_rows(net)).parts(batch) == parts


# ---- going forward ---------------------------------------------------------------------------------------


@settings(max_examples=min(40, settings.default.max_examples))
@given(n=st.integers(1, 70), calls=st.integers(1, 3), dtype=st.sampled_from(["float32", "float64"]))
def test_outputs_by_chunks_are_those_of_the_whole(n, calls, dtype):
    """Also once passes are recorded, which they are from the second chunk on."""
    net, whole = network(dtype=dtype), network(dtype=dtype, whole=True)
    x = np.asarray(data(n)[0], dtype)
    expected = whole.forward(x)
    for _ in range(calls):
        found = net.forward(x)
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=1e-5 if dtype == "float32" else 1e-13, atol=1e-7)
    rows = 16 if dtype == "float64" else 32
    assert net.rows_of_pass == rows
    assert n < 2 * rows or net._prepared[rows] is not None


@pytest.mark.parametrize("layout", [np.asfortranarray, lambda x: np.repeat(x, 2, axis=0)[::2], np.float32])
def test_outputs_of_arrays_that_are_converted(layout):
    x = data(50)[0]
    np.testing.assert_allclose(
        network().forward(layout(x)), network(whole=True).forward(layout(x)), rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize("calls", [0, 2])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_entry_is_named_where_it_stands(calls, bad):
    net, x = network(), data(50)[0]
    for _ in range(calls):
        net.forward(x)
    x[37, 2] = bad
    with pytest.raises(InputError, match=r"at row 37, column 2"):
        net.forward(x)
    x[37, 2] = 0.0
    np.testing.assert_allclose(net.forward(x), network(whole=True).forward(x), rtol=1e-12, atol=1e-14)


def test_moments_of_batch_norm_are_the_running_ones_in_every_chunk():
    layers = [Dense(5, 16), BatchNorm(16, "tanh"), Dense(16, 3)]
    x = data(50)[0]
    nets = [network(layers=layers, whole=whole) for whole in (False, True)]
    np.testing.assert_allclose(*(net.forward(x) for net in nets), rtol=1e-12, atol=1e-14)


def test_a_new_length_makes_no_pass_twice(monkeypatch):
    net, passes = network(), []
    forward, recorded = net._forward, net._recorded
    x = data(70)[0]
    for _ in range(3):
        net.forward(x[:64])

    def counted(of):
        def call(x):
            done = of(x)
            if done is not None:
                passes.append(len(x))
            return done

        return call

    monkeypatch.setattr(net, "_forward", counted(forward))
    monkeypatch.setattr(net, "_recorded", counted(recorded))
    net.forward(x)
    assert passes == [16, 16, 16, 16, 6]
    for n in (65, 66, 67, 68, 69, 65, 66, 67, 68, 69):  # more lengths than are kept
        net.forward(x[:n])
    assert net._prepared[16] is not None
    assert len(net._prepared) == 5


def test_outputs_while_another_thread_is_at_the_recordings():
    net, x = network(), data(64)[0]
    net.forward(x)
    expected = net.forward(x)
    with net._prepared[16]._lock:
        np.testing.assert_array_equal(net.forward(x), expected)
        x[40, 1] = np.nan
        with pytest.raises(InputError, match=r"at row 40, column 1"):
            net.forward(x)


def test_a_bad_category_is_named_where_it_stands():
    net = network(layers=[Embedding(5, {0: 4}, 3), Dense(7, 16, "tanh"), Dense(16, 3)])
    x = data(50)[0]
    x[:, 0] = RNG.integers(0, 4, 50)
    for _ in range(3):
        net.forward(x)
    x[45, 0] = 9
    with pytest.raises(InputError, match="row 45"):
        net.forward(x)


# ---- steps -----------------------------------------------------------------------------------------------


@settings(max_examples=min(25, settings.default.max_examples))
@given(
    batch=st.integers(1, 60),
    accumulate=st.integers(1, 5),
    loss=st.sampled_from(["softmax_cross_entropy", "mse"]),
    weights=st.lists(st.sampled_from([0.0, 1e-3, 1.0]), min_size=60, max_size=60),
)
def test_a_step_is_that_of_the_whole_batch(batch, accumulate, loss, weights):
    weights[0] = 1.0
    x, y = data(batch, loss != "mse")
    ends = []
    for whole in (False, True):
        trainer = Trainer(
            network(whole=whole), loss, "sgd", l2=0.01, clip_norm=0.3, accumulate=1 if whole else accumulate
        )
        value = float(trainer.step(x, y, weights[:batch]))
        ends.append((value, trainer.net.flat, trainer.net.flat_gradients, trainer.state.stats))
    for mine, theirs in zip(*ends, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("plain", [False, True])
def test_a_fit_with_all_that_looks_at_places_in_a_batch(plain):
    """Dropout drops the same of each example; the last batch is smaller than the others."""
    layers = [Dropout(0.2), Dense(5, 16), LayerNorm(16, "tanh"), Dropout(0.5), Dense(16, 3)]
    x, y = data(101)
    ends = []
    for whole in (False, True):
        net = network(layers=layers, whole=whole, plain=plain)
        trainer = Trainer(net, "softmax_cross_entropy", seed=3, label_smoothing=0.1, ema=0.9)
        trainer.fit(x, y, epochs=2, batch_size=40, sample_weight=np.arange(101.0))
        ends.append((net.flat, *trainer.slots, np.array(trainer.history["loss"])))
    for mine, theirs in zip(*ends, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "layers",
    [
        [SwiGLU(5, 16), Dense(16, 3)],
        [Dense(5, 16), Residual([LayerNorm(16, "tanh"), Dense(16, 16)]), Dense(16, 3)],
        [Embedding(5, {0: 4}, 3), Dense(7, 16, "gelu"), Dense(16, 3)],
    ],
)
def test_layers_that_are_not_plain(layers):
    x, y = data(60)
    x[:, 0] = RNG.integers(0, 4, 60)
    ends = []
    for whole in (False, True):
        net = network(layers=layers, whole=whole)
        Trainer(net, "softmax_cross_entropy", "sgd", seed=3).fit(x, y, epochs=2, batch_size=60)
        ends.append(net.flat)
    np.testing.assert_allclose(*ends, rtol=1e-10, atol=1e-13)


def test_a_batch_that_is_left_out_is_left_out_whole():
    """One example of its first micro-batch makes the products infinite."""
    x, y = data(120, labels=False)
    x[3, 1] = 1e308
    ends = []
    for whole in (False, True):
        net = Network(list(WIDTHS), "relu", device=network(whole=whole).backend, dtype="float64", seed=0)
        trainer = Trainer(net, "mse", seed=3, on_nan="skip")
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.fit(x, y, epochs=1, batch_size=60, shuffle=False)
        assert trainer.history["skipped"] == [1]
        ends.append(net.flat)
    np.testing.assert_allclose(*ends, rtol=1e-10, atol=1e-13)


def test_a_population_is_its_separate_runs():
    x, y = data(150)
    held = data(70)
    members = Population(list(WIDTHS), "tanh", size=2, seeds=5, device="cpu")
    together = PopulationTrainer(members, "softmax_cross_entropy", seeds=20)
    together.fit(x, y, epochs=2, batch_size=60, validation=held)
    for k, member in enumerate(together):
        net = Network(list(WIDTHS), "tanh", device="cpu", seed=5 + k)
        alone = Trainer(net, "softmax_cross_entropy", seed=20 + k)
        alone.fit(x, y, epochs=2, batch_size=60, validation=held)
        assert member.net.flat.tobytes() == net.flat.tobytes()
        assert member.history["val_loss"] == alone.history["val_loss"]


def test_two_runs_have_the_same_bits():
    x, y = data(150)
    ends = []
    for _ in range(2):
        net = network(dtype="float32")
        Trainer(net, "softmax_cross_entropy", seed=3).fit(x, y, epochs=2, batch_size=60)
        ends.append(net.flat.tobytes())
    assert ends[0] == ends[1]


@pytest.mark.parametrize("inside", [False, True])
def test_batch_norm_sees_what_was_asked_for(inside):
    norm = BatchNorm(16, "tanh")
    layers = [Dense(5, 16), Residual([norm, Dense(16, 16)]) if inside else norm, Dense(16, 3)]
    x, y = data(60)
    ends = []
    for whole in (False, True):
        net = network(layers=layers, whole=whole)
        assert cached_rows(net) is None
        Trainer(net, "softmax_cross_entropy", seed=3).fit(x, y, epochs=2, batch_size=60)
        ends.append(net.flat.tobytes())
    assert ends[0] == ends[1]


def test_activations_take_the_memory_of_a_micro_batch():
    taken = []
    for whole in (False, True):
        net = network(whole=whole)
        trainer, before = Trainer(net, "softmax_cross_entropy"), net.backend.memory().allocated
        trainer.fit(*data(2048), epochs=1, batch_size=2048)
        taken.append(net.backend.memory().peak - before)
    assert taken[0] < 0.2 * taken[1]


# ---- room ------------------------------------------------------------------------------------------------


def bytes_of(asked, batch, inside):
    rest = asked.examples % batch
    rows = -(-batch // asked.parts(batch)) + -(-rest // asked.parts(rest))
    return asked.outside * batch + inside * rows


@pytest.mark.parametrize("examples", [0, 1000, 1013])
@pytest.mark.parametrize("outside", [0, 3])
@pytest.mark.parametrize("rows", [None, 50])
@pytest.mark.parametrize("room", [10, 70, 399, 400, 1000, 3000, 10**6])
def test_the_batch_that_is_named_is_the_largest_that_fits(room, rows, outside, examples):
    asked = Asked(900, 0, 3, rows, outside, examples)
    found = _largest(room, 10, asked)
    assert found == max((b for b in range(1, 900) if bytes_of(asked, b, 10) <= room), default=0)


def test_the_search_for_it_ends_soon():
    """A batch of a hundred million, of which a hundred rows fit."""
    assert _largest(100, 1, Asked(10**8, 0, 1, 256)) == 100


@pytest.mark.parametrize("by_step", [False, True])
def test_where_even_micro_batches_do_not_fit_the_error_names_a_batch_that_does(monkeypatch, by_step):
    """A step takes the inputs of a whole batch, a fit those of a micro-batch."""
    if not by_step:
        monkeypatch.setattr(rows_module, "_FEWEST", 256)
    net = network(layers=(5, 8 if by_step else 200, 3))
    trainer, ops = Trainer(net, "softmax_cross_entropy", seed=0), net.backend
    x, y = data(20_000 if by_step else 2000)

    def train(batch):
        if by_step:
            return np.isfinite(float(trainer.step(x[:batch], y[:batch])))
        return len(trainer.fit(x, y, epochs=1, batch_size=batch)) == 1

    trainer.step(x[:9], y[:9])
    limit = ops.memory().allocated + 500_000
    monkeypatch.setattr("gpubp.backend.cpu.arrays._LARGE", 0)
    for module in ("gpubp.backend.cpu.arrays", "gpubp.host_memory"):
        monkeypatch.setattr(f"{module}.free_memory", lambda: limit - ops.memory().allocated)
    with pytest.raises(DeviceMemoryError) as raised:
        train(len(x))
    (found,) = re.findall(r"take batches of ([\d,]+) examples, about the largest that fit", str(raised.value))
    batch = int(found.replace(",", ""))
    assert train(batch)
    with pytest.raises(DeviceMemoryError):
        train(int(1.5 * batch))
