"""A GPU that is full: the error names the largest batch that fits, that batch does fit, and nothing is leaked."""

import gc
import re
import sys
import weakref

import numpy as np
import pytest
from fake_gpu import Machine

import gpubp
from gpubp.backend.base import Memory
from gpubp.backend.cpu import CpuBackend
from gpubp.backend.cuda.context import Context
from gpubp.errors import DeviceMemoryError

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(3000, 20)).astype(np.float32), rng.integers(0, 5, 3000)


class Gpu(CpuBackend):
    """A backend that computes on the CPU, and whose every array takes memory of the stand-in GPU."""

    name = "cuda:0"
    cache_bytes = None  # as every GPU, it takes batches whole

    def __init__(self):
        super().__init__()
        self.context = Context(0)

    def _new(self, shape, dtype):
        array = super()._new(shape, dtype)
        if array.nbytes:
            owner = array
            while isinstance(owner.base, np.ndarray):
                owner = owner.base
            kept = self.context.alloc(array.nbytes)
            weakref.finalize(owner, lambda kept: None, kept).atexit = False
        return array

    def to_device(self, array, dtype=None):
        new = self.empty(np.shape(array), dtype or np.asarray(array).dtype)
        new[...] = array
        return new

    def memory(self):
        return Memory(self.context.pool.allocated, self.context.pool.peak)


@pytest.fixture
def machine(monkeypatch):
    return Machine(memory=10**9).install(monkeypatch)


def make_trainer(activation, loss="softmax_cross_entropy", dtype="float32"):
    net = gpubp.Network([20, 64, 64, 5], activation, device=Gpu(), dtype=dtype, seed=0)
    return gpubp.Trainer(net, loss, seed=0)


def named(message):
    found = re.search(r"; take batches of ([\d,]+) examples, about the largest that fit", message)
    assert found, message
    return int(found[1].replace(",", ""))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh"])
def test_the_batch_that_the_error_names_fits_and_is_near_the_largest(machine, activation, dtype):
    trainer = make_trainer(activation, dtype=dtype)
    pool = trainer.net.backend.context.pool
    before = pool.allocated
    machine.memory = before + X.nbytes * 4 + 10**6
    with pytest.raises(DeviceMemoryError) as raised:
        trainer.fit(X, Y, epochs=1, batch_size=3000)
    message = str(raised.value)
    assert message.startswith("out of memory on cuda:0 for a batch of 3,000: expected ")
    assert re.search(r"expected [\d,]+ free bytes; got [\d,]+ of [\d,]+; take batches", message)
    assert "\n" not in message
    assert pool.allocated == before  # while the error lives
    fits = named(message)
    history = trainer.fit(X, Y, epochs=1, batch_size=fits)
    assert len(history) == 1
    with pytest.raises(DeviceMemoryError):
        trainer.fit(X, Y, epochs=1, batch_size=int(1.4 * fits))


def test_one_step_names_its_batch_and_a_smaller_one_follows(machine):
    trainer = make_trainer("gelu")
    pool = trainer.net.backend.context.pool
    float(trainer.step(X[:8], Y[:8]))
    before, weights = pool.allocated, trainer.host_parameters().copy()
    machine.memory = before + 600_000
    with pytest.raises(DeviceMemoryError) as raised:
        trainer.step(X, Y)
    fits = named(str(raised.value))
    assert pool.allocated <= before
    np.testing.assert_array_equal(trainer.host_parameters(), weights)
    assert trainer.steps == 1
    loss = float(trainer.step(X[:fits], Y[:fits]))
    assert np.isfinite(loss)
    assert trainer.steps == 2


def test_the_last_error_of_an_interactive_session_holds_no_memory(machine):
    trainer = make_trainer("gelu")
    pool = trainer.net.backend.context.pool
    before = pool.allocated
    machine.memory = before + 10**6
    kept = []
    for call in (lambda: trainer.fit(X, Y, batch_size=3000), lambda: trainer.step(X, Y)):
        try:
            call()
        except DeviceMemoryError:
            kept.append(sys.exc_info())  # as sys.last_value is kept
    assert len(kept) == 2
    gc.collect()
    assert pool.allocated == before


def test_no_room_for_one_example(machine):
    trainer = make_trainer("relu")
    machine.memory = trainer.net.backend.context.pool.allocated + 100
    with pytest.raises(DeviceMemoryError, match="; not even one example fits: take a smaller network"):
        trainer.step(X[:100], Y[:100])


def test_a_network_that_does_not_fit(machine):
    machine.memory = 5000
    with pytest.raises(DeviceMemoryError, match=r"expected [\d,]+ free bytes; got [\d,]+ of 5,000"):
        make_trainer("relu")


def test_the_estimate_counts_what_a_step_allocates(machine):
    from gpubp.training.room import bytes_per_example

    for activation in ("relu", "gelu", "identity"):
        trainer = make_trainer(activation)
        pool = trainer.net.backend.context.pool
        sizes = []
        for batch in (1000, 3000):
            before = pool.allocated
            trainer.step(X[:batch], Y[:batch])
            sizes.append(pool.allocated - before)
        assert sizes[1] - sizes[0] == pytest.approx(2000 * bytes_per_example(trainer.net), rel=0.06)


@pytest.mark.durability
def test_five_smaller_fits_follow_five_that_do_not_fit(machine):
    trainer = make_trainer("gelu")
    machine.memory = trainer.net.backend.context.pool.allocated + X.nbytes * 4
    kept = []
    for _ in range(5):
        with pytest.raises(DeviceMemoryError) as raised:
            trainer.fit(X, Y, epochs=1, batch_size=3000)
        kept.append(raised.value)
        history = trainer.fit(X, Y, epochs=1, batch_size=named(str(raised.value)))
    assert len(history) == 5
    assert np.isfinite([row["loss"] for row in history.rows]).all()
