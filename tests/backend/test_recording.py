"""Capture and replay: the bits of the eager step, no allocation, a fork, stopping, and the cost of each launch."""

import os
import re
import subprocess
import sys
import textwrap
import tracemalloc

import numpy as np
import pytest

import gpubp
from gpubp.backend import State, threads
from gpubp.backend.cpu import CpuBackend
from gpubp.backend.launch import Launch
from gpubp.kernels.replay import STEP, STOPPED
from gpubp.optimizers import optimizer
from gpubp.training.diagnose import raise_if_stopped
from gpubp.training.step import Step


def problem(loss, n_in=7, n_out=4, batch=33, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((batch, n_in))
    if loss == "softmax_cross_entropy":
        return x, rng.integers(0, n_out, batch)
    if loss in ("binary_cross_entropy", "poisson"):
        return x, rng.integers(0, 2, (batch, n_out))
    return x, rng.standard_normal((batch, n_out))


def trainer_for(activation, loss, method, dtype, **options):
    net = gpubp.Network([7, 19, 13, 4], activation, device=CpuBackend(), dtype=dtype, seed=3)
    return gpubp.Trainer(net, loss, method, **options)


def eager_step(trainer, x, y, w=None):
    """One step by a fresh `Step`, whose first run makes every launch as it comes: no replay."""
    batch = trainer.net.check_batch(x, y, trainer.loss, w)
    step = Step(trainer, len(batch[0]), labels=batch[1].dtype == np.int64)
    step.fill(*batch)
    trainer.set_lr(trainer.lr_at(trainer.steps))
    step.run(1)
    raise_if_stopped(trainer, step)
    return float(trainer.state.stats[0])


@pytest.mark.parametrize(
    ("activation", "loss", "method", "dtype", "options"),
    [
        ("relu", "softmax_cross_entropy", "adam", "float32", {}),
        ("gelu", "softmax_cross_entropy", "adamw", "float64", {"l2": 1e-3}),
        ("tanh", "mse", optimizer("sgd", lr=0.05, momentum=0.9, nesterov=True), "float32", {"l1": 1e-3}),
        ("silu", "huber", "rmsprop", "float32", {"schedule": "cosine", "total_steps": 40}),
        ("sigmoid", "binary_cross_entropy", "adagrad", "float64", {}),
        ("mish", "poisson", optimizer("sgd", lr=0.01), "float64", {}),
        ("softplus", "mae", "adam", "float32", {"schedule": "one_cycle", "total_steps": 50}),
        ("elu", "half_sse", "sgd", "float64", {"l2": 0.1, "l1": 0.1}),
    ],
)
def test_a_captured_step_equals_the_eager_step_bit_for_bit(activation, loss, method, dtype, options):
    captured, eager = (trainer_for(activation, loss, method, dtype, **options) for _ in range(2))
    for k in range(50):
        x, y = problem(loss, seed=k)
        w = np.random.default_rng(k).uniform(0, 1, len(x)) if k % 2 else None
        assert captured.step(x, y, w) == eager_step(eager, x, y, w), f"step {k}"
        assert captured.net.flat.tobytes() == eager.net.flat.tobytes(), f"step {k}"
    for a, b in zip(captured.slots, eager.slots, strict=True):
        assert a.tobytes() == b.tobytes()
    assert captured.steps == eager.steps == 50


def test_many_replays_in_one_call_are_the_same_as_one_by_one():
    found = []
    for calls in ([60], [1] * 60, [7, 53]):
        trainer = trainer_for("tanh", "mse", "adam", "float32")
        x, y = problem("mse")
        step = Step(trainer, len(x), labels=False)
        step.fill(x, y, np.ones(len(x)))
        for times in calls:
            step.run(times)
        assert trainer.steps == 60
        found.append(trainer.net.flat.tobytes())
    assert len(set(found)) == 1


def warm_step(width=64, batch=128):
    net = gpubp.Network([32, width, 10], seed=0)
    trainer = gpubp.Trainer(net, "softmax_cross_entropy", "adam", l2=1e-4)
    rng = np.random.default_rng(0)
    step = Step(trainer, batch, labels=True)
    step.fill(rng.standard_normal((batch, 32)), rng.integers(0, 10, batch), np.ones(batch))
    step.run(20)
    return trainer, step


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("times", [1, 1000])
def test_replay_allocates_nothing_in_python(times, record_property):
    trainer, step = warm_step()
    before_arrays = trainer.net.backend.memory()
    tracemalloc.start()
    try:
        step.run(times)
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(1000 // times):
            step.run(times)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    record_property("growth", after - before)
    record_property("peak", peak - before)
    print(f"1,000 replays in calls of {times}: growth {after - before} B, peak {peak - before} B")
    assert trainer.net.backend.memory() == before_arrays
    assert after - before < 300
    assert peak - before < 1500  # one call's own objects: frames, a context manager, a few integers


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/statm")
def test_replay_allocates_nothing_in_the_process(record_property):
    _, step = warm_step()
    step.run(1000)
    before = resident_bytes()
    for _ in range(10):
        step.run(100)
    grown = resident_bytes() - before
    record_property("rss", grown)
    print(f"1,000 replays: resident memory grew by {grown} B")
    assert grown <= 65536  # one array of this step that was made anew and kept would be 32 kB x 1,000


def test_replay_stops_at_a_bad_step_inside_a_call_of_many():
    trainer, step = warm_step()
    weights, done = trainer.net.flat.copy(), trainer.steps
    step.x[5, 3] = np.nan
    assert step.recording.replay(100) == 1
    assert trainer.counter(STOPPED) != 0
    assert trainer.counter(STEP) == done
    assert trainer.net.flat.tobytes() == weights.tobytes()
    # and stays stopped until someone has looked
    step.x[5, 3] = 0
    assert step.recording.replay(100) == 1
    assert trainer.net.flat.tobytes() == weights.tobytes()
    trainer.state.counters[STOPPED] = 0
    assert step.recording.replay(100) == 100
    assert trainer.steps == done + 100


def test_an_error_inside_capture_leaves_the_backend_usable():
    ops = CpuBackend()
    with pytest.raises(RuntimeError, match="on purpose"), ops.capture(State(ops, 0)):
        raise RuntimeError("on purpose")
    with ops.capture(State(ops, 0)) as recording:
        ops.matmul(np.ones((2, 2)), np.ones((2, 2)))
    ops.matmul(np.ones((2, 2)), np.ones((2, 2)))
    assert len(recording.launches) == 1


def test_costs_time_launches_as_a_replay_makes_them(monkeypatch):
    monkeypatch.setattr(threads, "_threads", 2)
    ops, sizes = CpuBackend(), []
    with ops.capture(State(ops, 0)) as recording:
        ops.matmul(np.ones((256, 256)), np.ones((256, 256)))
    monkeypatch.setattr(Launch, "run", lambda launch, size: sizes.append(size))
    recording.costs(1)  # before any replay
    assert sizes == [2]


def test_costs_list_every_launch_with_bytes_and_operations():
    trainer, step = warm_step(width=64, batch=128)
    costs = step.recording.costs()
    assert [c.seconds for c in costs] == [0.0] * len(costs)
    names = [
        (c.scope, re.sub(r"( \d+(x\d+)*)$", "", c.name) if "gemm" not in c.name else c.name) for c in costs
    ]
    assert names == [
        ("layer 0 forward", "gemm 128x32x64"),
        ("layer 0 forward", "bias + relu"),
        ("layer 1 forward", "gemm 128x64x10"),
        ("loss", "bias + softmax_cross_entropy + delta + db"),
        ("layer 0 backward", "gemm 128x10x64"),
        ("layer 0 backward", "delta relu + db"),
        ("layer 1 backward", "gemm 64x128x10"),
        ("layer 0 backward", "gemm 32x128x64"),
        ("update", "l1 + l2 penalty"),
        ("update", "update adam"),
        ("update", "advance"),
    ]
    assert sum(c.flops for c in costs if "gemm" in c.name) == 128 * trainer.flops_per_sample
    first = costs[0]
    assert (first.read, first.written, first.flops) == (
        4 * (128 * 32 + 32 * 64),
        4 * 128 * 64,
        2 * 128 * 32 * 64,
    )
    assert all(c.seconds > 0 for c in step.recording.costs(repeats=3))


FORK = textwrap.dedent(
    """
    import os
    import numpy as np
    import gpubp
    from gpubp.training.step import Step

    def step(width):
        net = gpubp.Network([20, width, 5], "gelu", seed=0)
        trainer = gpubp.Trainer(net, "softmax_cross_entropy", "adam")
        rng = np.random.default_rng(0)
        made = Step(trainer, 256, labels=True)
        made.fill(rng.standard_normal((256, 20)), rng.integers(0, 5, 256), np.ones(256))
        made.run(3)
        return trainer, made

    steps = [step(width) for width in (16, 1024)]  # alone; shared where there are CPUs
    read, write = os.pipe()
    child = os.fork()
    for trainer, made in steps:
        made.run(10)
    digest = b"".join(trainer.net.flat.tobytes() for trainer, _ in steps)
    if child == 0:
        os.close(read)
        with os.fdopen(write, "wb") as pipe:
            pipe.write(digest)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        theirs = pipe.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, status
    assert theirs == digest, "the child computed other bits"
    print("same")
    """
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_replay_in_a_forked_child_gives_the_same_bits():
    run = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("same")
    print(run.stdout)
