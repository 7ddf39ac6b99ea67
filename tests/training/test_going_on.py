"""A signal after any batch of an epoch: what is saved then goes on with the next one, wherever the rows come from."""

import signal

import numpy as np
import pytest
import scipy.sparse

from gpubp import Dense, Dropout, Network, Trainer
from gpubp.data import blocks
from gpubp.data.blockwise import Blocks, Part
from gpubp.errors import NumericalError
from gpubp.training import epochs as loop
from gpubp.training.step import Step

N, EPOCHS, OPTIONS = 33, 2, {"batch_size": 4}
RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((N, 4)), RNG.integers(0, 3, N)


class Few(Blocks):
    """Blocks of five rows."""

    n_features, starts = 4, np.append(np.arange(0, N, 5), N)

    def read(self, block):
        rows = slice(*self.starts[block : block + 2])
        yield Part(X[rows], Y[rows])


# (x, y), and the bytes that may be held: windows of eight rows or so where there is a limit
SOURCES = {
    "arrays": ((X, Y), None),
    "arrays in windows": ((X, Y), 500),
    "blocks in windows": ((Few(), None), 500),
    "blocks held": ((Few(), None), None),
    "sparse rows": ((blocks(scipy.sparse.csr_array(X), Y), None), 500),
}


def test_after_a_batch_that_was_left_out(tmp_path, monkeypatch):
    x = X.copy()
    x[2] = 1e30
    run = Step.run

    def press(step, times):
        run(step, times)
        signal.raise_signal(signal.SIGINT)

    def trainer():
        return Trainer(Network([4, 3], device="cpu", seed=0), "half_sse", "sgd", on_nan="skip", seed=1)

    options = {"batch_size": 4, "shuffle": False}
    whole, cut = trainer(), trainer()
    with pytest.warns(RuntimeWarning, match="left out"):
        whole.fit(x, X[:, :3], epochs=1, **options)
    with monkeypatch.context() as patch:
        patch.setattr(Step, "run", press)
        with pytest.warns(RuntimeWarning, match="left out"):
            cut.fit(x, X[:, :3], epochs=1, **options)
    assert (cut.position.examples, cut.position.skipped) == (4, 1)
    cut.save(tmp_path / "t.safetensors")
    resumed = Trainer.load(tmp_path / "t.safetensors", "cpu")
    resumed.fit(x, X[:, :3], epochs=1, **options)
    assert resumed.net.flat.tobytes() == whole.net.flat.tobytes()
    assert (resumed.history["loss"], resumed.history["skipped"]) == (whole.history["loss"], [1])


def test_a_rollback_after_going_on_ends_at_the_beginning_of_the_epoch(tmp_path, monkeypatch):
    x = X.copy()
    x[30] = 1e30
    run = Step.run

    def press(step, times):
        run(step, times)
        signal.raise_signal(signal.SIGINT)

    cut = Trainer(Network([4, 3], device="cpu", seed=0), "half_sse", "adam", on_nan="rollback", seed=1)
    options = {"epochs": 1, "batch_size": 4, "shuffle": False}
    before = cut.net.flat.tobytes()
    with monkeypatch.context() as patch:
        patch.setattr(Step, "run", press)
        patch.setattr(loop, "CHUNK_SECONDS", 1e-9)
        cut.fit(x, X[:, :3], **options)
    assert cut.steps == 1
    cut.save(tmp_path / "t.safetensors")
    resumed = Trainer.load(tmp_path / "t.safetensors", "cpu")
    with (
        pytest.warns(RuntimeWarning, match="rolled back"),
        pytest.raises(NumericalError, match="8 rollbacks"),
    ):
        resumed.fit(x, X[:, :3], **options)
    assert resumed.steps == 0
    assert resumed.net.flat.tobytes() == before
    assert not any(slot.any() for slot in resumed.slots)


def trainer_of():
    net = Network([Dense(4, 6, "tanh"), Dropout(0.3), Dense(6, 3)], device="cpu", seed=0)
    return Trainer(net, "softmax_cross_entropy", schedule="cosine", total_steps=18, seed=1)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("source", SOURCES)
def test_after_any_batch(tmp_path, monkeypatch, source, shuffle):
    data, limit = SOURCES[source]
    options = OPTIONS | {"shuffle": shuffle, "max_device_bytes": limit}
    whole, run = trainer_of(), Step.run
    whole.fit(*data, epochs=EPOCHS, **options)
    for stop in range(1, whole.steps):

        def press(step, times, stop=stop):
            run(step, times)
            if step.trainer.steps == stop:
                signal.raise_signal(signal.SIGINT)

        cut = trainer_of()
        with monkeypatch.context() as patch:
            patch.setattr(Step, "run", press)
            patch.setattr(loop, "CHUNK_SECONDS", 1e-9)  # one step at a time
            assert cut.fit(*data, epochs=EPOCHS, **options).stopped == "interrupted"
        assert cut.steps == stop
        cut.save(tmp_path / "t.safetensors")
        for trainer in (Trainer.load(tmp_path / "t.safetensors", "cpu"), cut):  # here and in another process
            trainer.fit(*data, epochs=EPOCHS - trainer.epoch, **options)
            assert trainer.net.flat.tobytes() == whole.net.flat.tobytes()
            assert trainer.history["loss"] == whole.history["loss"]
            assert trainer.history["lr"] == whole.history["lr"]
            assert trainer.rng.bit_generator.state == whole.rng.bit_generator.state
