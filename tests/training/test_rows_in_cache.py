"""Batches that no cache would hold: taken in chunks going forward, in micro-batches by a step, to the same result."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpubp import BatchNorm, Dense, Dropout, LayerNorm, Network, Residual, Trainer
from gpubp.backend.base import Backend
from gpubp.backend.cpu import CpuBackend
from gpubp.errors import DeviceMemoryError, InputError
from gpubp.network.rows import rows_in_cache
from gpubp.training.micro import parts_of
from gpubp.training.room import Asked, _largest

RNG = np.random.default_rng(0)
WIDTHS = (5, 16, 16, 3)


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
    fewest=st.just(4),
)
def test_rows_fill_the_cache_or_weigh_as_much_as_the_weights(cache, per_row, weights, fewest):
    ops = CpuBackend(plain=True)
    ops.cache_bytes = cache
    rows = rows_in_cache(ops, per_row, weights)
    assert rows >= fewest
    assert rows & (rows - 1) == 0
    if rows > fewest:
        assert 0.7 < rows * max(per_row, 1) / max(cache, weights) < 1.42


def test_a_device_that_takes_batches_whole():
    ops = CpuBackend(plain=True)
    ops.cache_bytes = None
    assert rows_in_cache(ops, 100, 100) is None
    assert Backend.cache_bytes is None
    assert parts_of(network(whole=True), 3, 10**6) == 3


def test_networks_of_use():
    """With the cache as it is; neither small networks nor those whose weights outweigh a batch are cut."""
    CpuBackend.cache_bytes = 4 * 2**20  # the fixture takes it back
    for layers, batch, dtype, chunk, parts in (
        ((54, 256, 256, 256, 256, 7), 4096, "float64", 512, 8),
        ((54, 256, 256, 256, 256, 7), 4096, "float32", 1024, 8),
        ((784, 512, 512, 10), 128, "float32", 1024, 1),
        ((784, 2048, 2048, 2048, 10), 1024, "float32", 2048, 1),
        ((8, 32, 32, 1), 32, "float64", 4096, 1),
    ):
        net = network(layers=layers, dtype=dtype)
        assert net._chunk == chunk
        assert parts_of(net, 1, batch) == parts


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
    assert net._chunk == rows
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
        assert parts_of(net, 1, 60) == 1
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


def rows_of(asked, batch):
    rest = asked.examples % batch if batch else 0
    return -(-batch // asked.parts(batch)) + -(-rest // asked.parts(rest))


@pytest.mark.parametrize("examples", [0, 1000, 1013])
@pytest.mark.parametrize("rows", [1, 3, 40, 100, 1000])
def test_the_batch_that_is_named_is_the_largest_whose_rows_fit(rows, examples):
    asked = Asked(900, 0, lambda n: max(3, n // 50), examples)
    found = _largest(rows, asked)
    assert found == max((b for b in range(1, 900) if rows_of(asked, b) <= rows), default=0)


def test_where_even_micro_batches_do_not_fit_the_error_names_a_batch_that_does(monkeypatch):
    monkeypatch.setattr("gpubp.network.rows._FEWEST", 256)
    net = network(layers=(5, 200, 3))
    trainer, ops = Trainer(net, "softmax_cross_entropy", seed=0), net.backend
    x, y = data(2000)
    trainer.step(x[:9], y[:9])
    trainer.mean()
    limit = ops.memory().allocated + 500_000
    monkeypatch.setattr("gpubp.backend.cpu.arrays._LARGE", 0)
    for module in ("gpubp.backend.cpu.arrays", "gpubp.host_memory"):
        monkeypatch.setattr(f"{module}.free_memory", lambda: limit - ops.memory().allocated)
    with pytest.raises(DeviceMemoryError) as raised:
        trainer.fit(x, y, epochs=1, batch_size=2000)
    (batch,) = re.findall(r"take batches of (\d+) examples, about the largest that fit", str(raised.value))
    assert len(trainer.fit(x, y, epochs=1, batch_size=int(batch))) == 1
    with pytest.raises(DeviceMemoryError):
        trainer.fit(x, y, epochs=1, batch_size=2 * int(batch))
