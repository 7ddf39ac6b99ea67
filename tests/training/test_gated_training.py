"""Gated linear units and residual blocks in training: captured, replayed, stopped, saved and gone on with."""

import numpy as np
import pytest
from reference import host

from gpubp import GEGLU, Adam, Dense, Dropout, Network, Residual, SwiGLU, Trainer
from gpubp.backend import threads
from gpubp.backend.cpu import CpuBackend
from gpubp.errors import NumericalError
from gpubp.training.step import Step

KINDS = {
    "gated": [SwiGLU(4, 9), Dropout(0.2), GEGLU(9, 7, bias=False), Dense(7, 3)],
    "residual": [
        Dense(4, 8, "tanh"),
        Residual([SwiGLU(8, 9), Dense(9, 8)]),
        Dropout(0.2),
        Residual([Dense(8, 8, "relu", max_norm=0.8), Residual([Dense(8, 8, "gelu")])]),
        Dense(8, 3),
    ],
}


def data(n=24, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 4)), rng.integers(0, 3, n)


def trainer_of(kind, dtype="float64", device="cpu", **options):
    net = Network(KINDS[kind], dtype=dtype, device=device, seed=0)
    return Trainer(net, "softmax_cross_entropy", Adam(0.02), l2=1e-3, seed=3, **options)


def bits(trainer, replayed):
    x, y = data(64)
    step = Step(trainer, 64, labels=True)
    step.fill(*trainer.net.check_batch(x, y, trainer.loss))
    for times in (20,) if replayed else [1] * 20:
        step.run(times) if replayed else step._once()
    return trainer.net.flat.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_captured_is_eager_at_any_number_of_threads(monkeypatch, dtype, kind):
    found = []
    for size in (1, 2):
        monkeypatch.setattr(threads, "_threads", size)
        found += [bits(trainer_of(kind, dtype), replayed) for replayed in (True, False)]
    assert found[0] == found[1]
    assert found[2] == found[3]


@pytest.mark.parametrize("kind", KINDS)
def test_one_thread_gives_the_bits_of_two(monkeypatch, kind):
    """The recording of a team of two, walked by it and by one thread alone: by itself it chooses the faster way."""
    monkeypatch.setattr(threads, "_threads", 2)
    x, y = data(64)
    found = []
    for size in (1, 2):
        trainer = trainer_of(kind)
        step = Step(trainer, 64, labels=True)
        step.fill(*trainer.net.check_batch(x, y, trainer.loss))
        step.run(1)
        step.recording.table()
        assert step.recording._walk(9, size) == 9
        found.append(trainer.net.flat.tobytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", KINDS)
def test_every_device_trains_alike(device, kind):
    x, y = data(53)
    found, expected = trainer_of(kind, device=device), trainer_of(kind)
    for trainer in (found, expected):
        trainer.fit(x, y, epochs=3, batch_size=16, validation=data(20, 1))
    np.testing.assert_allclose(host(found.net.flat), expected.net.flat, rtol=1e-9, atol=1e-11)
    assert found.history["val_loss"] == pytest.approx(expected.history["val_loss"], rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_micro_batches_are_the_whole_batch(device, kind):
    x, y = data(53)
    found, expected = trainer_of(kind, device=device, accumulate=3), trainer_of(kind)
    for trainer in (found, expected):
        trainer.fit(x, y, epochs=3, batch_size=16)
    np.testing.assert_allclose(host(found.net.flat), expected.net.flat, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_on_where_it_stopped(tmp_path, kind):
    x, y = data(40)
    whole, first = trainer_of(kind), trainer_of(kind)
    whole.fit(x, y, epochs=4, batch_size=16)
    first.fit(x, y, epochs=2, batch_size=16)
    first.save(tmp_path / "a.safetensors")
    second = Trainer.load(tmp_path / "a.safetensors", device="cpu")
    assert repr(second.net) == repr(first.net)
    second.fit(x, y, epochs=2, batch_size=16)
    np.testing.assert_array_equal(second.net.flat, whole.net.flat)


@pytest.mark.parametrize(
    ("kind", "name", "where"),
    [
        ("gated", "0.W", "the output of layer 0 (GatedDense(4, 9, 'silu'))"),
        ("residual", "1.0.W", "the output of layer 1 (Residual([GatedDense(8, 9, 'silu'), Dense(9, 8, 'identity')]))"),
    ],
)  # fmt: skip
def test_what_overflows_is_named(device, kind, name, where):
    x, y = data()
    trainer = trainer_of(kind, dtype="float32", device=device)
    values = {n: host(v).copy() for n, v in trainer.net.parameters().items()}
    values[name][:] = 1e30
    trainer.net.load_parameters(values)
    with pytest.raises(NumericalError) as error:
        trainer.fit(x, y, epochs=1, batch_size=8)
    assert f"got NaN or infinity in {where}" in str(error.value)


def test_explain_lists_their_launches():
    names = [(row.scope, row.name) for row in trainer_of("residual").explain(8, repeats=1).rows]
    for launch in (
        ("layer 1 forward", "gemm 8x8x18"),
        ("layer 1 forward", "gated silu 8x9"),
        ("layer 1 forward", "add 8x8"),
        ("layer 1 backward", "gated delta + db 8x18"),
        ("layer 0 backward", "add 8x8"),
        ("layer 2 backward", "copy 8x8"),  # gelu inside writes over dE/da, which is added once more
        ("update", "max-norm 8x8"),
    ):
        assert launch in names
    backward = [name for scope, name in names if scope == "layer 1 backward"]
    assert not any(
        name.startswith("copy") for name in backward
    )  # behind it stands a Dense without activation


def test_the_plan_of_memory_counts_what_a_step_allocates():
    from gpubp.training.room import bytes_per_example

    for kind in KINDS:
        trainer, held = trainer_of(kind, device=CpuBackend(plain=True)), []  # whose products take no scratch
        for batch in (1000, 3000):
            before = trainer.net.backend.memory().allocated
            step = Step(trainer, batch, labels=True)
            step.fill(*trainer.net.check_batch(*data(batch), trainer.loss))
            step.run(1)
            held.append(trainer.net.backend.memory().allocated - before)
            step.recording = step = None
        assert held[1] - held[0] == pytest.approx(2000 * bytes_per_example(trainer.net), rel=0.06)
