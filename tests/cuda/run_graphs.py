"""Graphs, order and memory of the CUDA backend over the stand-in; `test_engine_standin.py` starts it.

NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/cuda/run_graphs.py
"""

from __future__ import annotations

import gc

import stand_in  # first: it puts the stand-ins in place  # isort: skip
import numpy as np
import pytest
from sim_cupy import MemoryPool
from sim_device import CudaError, Event, Stream, counts, current, streams

from gpubp import Network, Trainer
from gpubp.backend import State
from gpubp.backend.cuda import recording as recording_module
from gpubp.backend.cuda.recording import COPIES, CudaLaunch, CudaRecording, capture
from gpubp.backend.cuda.side_by_side import BRANCHES
from gpubp.data import blocks
from gpubp.kernels.activations import activation
from gpubp.kernels.replay import CURSOR, STEP
from gpubp.training import windows
from gpubp.training.step import Step

CUDA = stand_in.make_usable()
BRANCHED = stand_in.make_backend(branch=True)


def a_step(backend=CUDA, precision=None, hidden="relu", optimizer="adam", loss="mse", batch=8):
    """A trainer with its captured step over a batch of the host."""
    rng = np.random.default_rng(0)
    net = Network([4, 16, 8, 3], hidden, device=backend, dtype="float32", precision=precision, seed=0)
    trainer = Trainer(net, loss, optimizer, l2=0.01, seed=0)
    step = Step(trainer, batch, labels=False)
    with net.backend.ordered():
        step.fill(*net.check_batch(rng.standard_normal((batch, 4)), rng.random((batch, 3)), trainer.loss))
        step.run(1)
    return trainer, step


def everything(trainer):
    state = trainer.state
    arrays = [trainer.net.flat, *trainer.slots, state.counters, state.stats, state.hyper, state.scaling]
    return [np.array(trainer.net.backend.to_host(array)) for array in arrays]


# ---- the stand-in itself -------------------------------------------------------------------------------


def test_work_on_two_streams_without_an_event_is_a_race():
    stranger = Stream(non_blocking=True)
    with CUDA.ordered():
        array = CUDA.zeros((8,), np.float32)
    with stranger, pytest.raises(CudaError, match="race"):
        array.fill(1)
    CUDA.synchronize()
    with stranger:
        array.fill(1)
    with pytest.raises(CudaError, match="race"):
        CUDA.copy(array)
    with stranger, CUDA.ordered():  # the caller's work first
        np.testing.assert_array_equal(CUDA.to_host(CUDA.copy(array)), np.ones(8))


def test_results_are_ready_for_the_callers_stream():
    stranger = Stream(non_blocking=True)
    net = Network([4, 3], device=CUDA, seed=0)
    with stranger:
        outputs = net.forward(np.ones((2, 4)))
        np.testing.assert_array_equal(outputs.copy().get(), CUDA.to_host(outputs))
    assert current() == [Stream.null]


def test_capture_refuses_what_cuda_refuses():
    for forbidden in (
        lambda stream: CUDA.empty((8,), np.float32),
        lambda stream: stream.synchronize(),
        lambda stream: stream.wait_event(CUDA.context.stream.record()),
    ):
        with pytest.raises(CudaError):
            capture(forbidden)

    def fork(main, branch):
        branch.wait_event(main.record())
        array.data.memset_async(0, 4, branch)

    array = CUDA.zeros((1,), np.float32)
    with pytest.raises(CudaError, match="unjoined"):
        capture(fork, streams=2)
    assert not any(stream.is_capturing() for stream in streams.values())
    assert gc.isenabled()


def test_a_graph_over_freed_memory_is_caught():
    arrays = [CUDA.zeros((4,), np.float32)]
    graph = capture(lambda stream: arrays[0].data.memset_async(0, 4, stream))
    graph.launch(CUDA.context.stream)
    arrays.clear()
    with pytest.raises(CudaError, match="freed"):
        graph.launch(CUDA.context.stream)


# ---- recordings ----------------------------------------------------------------------------------------


def test_one_graph_is_built_and_replay_returns_at_once():
    trainer, step = a_step()
    step.recording.replay(1)  # the first one builds the graph
    before = counts.copy()
    assert step.recording.replay(7) == 7
    made = counts - before
    assert made["graph launches"] == 7
    assert not made["graphs"]
    assert not made["reads"]
    assert not made["waits"]
    assert not made["allocations"]
    assert not made["launches"]
    assert step.recording.built == 1
    assert trainer.steps == 9


@pytest.mark.parametrize("precision", [None, "bfloat16", "float16"])
@pytest.mark.parametrize("backend", [CUDA, BRANCHED], ids=["one stream", "branched"])
def test_a_recording_outlives_what_made_it(backend, precision):
    """Every buffer that its launches touch stays, and is not given to others."""
    _, step = a_step(backend, precision)
    recording = step.recording
    trainer = step.trainer
    twin, other = a_step(backend, precision)
    step.recording = None
    del step
    gc.collect()
    clutter = [trainer.net.backend.empty((n,), np.float32) for n in range(1, 200)]
    recording.replay(3)
    other.recording.replay(3)
    del clutter
    for mine, theirs in zip(everything(trainer), everything(twin), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("precision", [None, "bfloat16"])
def test_a_branch_computes_dw_beside_the_rest(precision):
    trainer, step = a_step(BRANCHED, precision)
    plain, other = a_step(CUDA, precision)
    aside = [launch.name for launch in step.recording.launches if launch.aside]
    assert len(aside) == 3
    assert not any(launch.aside for launch in other.recording.launches)
    for _ in range(4):  # each time in another order
        step.recording.replay(1)
        other.recording.replay(1)
        for mine, theirs in zip(everything(trainer), everything(plain), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_a_branch_waits_and_is_waited_for():
    """After, and before, whatever touches what it changes, or changes what it touches; at the end in any case."""
    a, b, c, d = (CUDA.zeros((4,), np.float32) for _ in range(4))

    def launch(reads, changes, aside=False):
        operands = (*reads, *changes)

        def issue():
            addresses = [[x.data.ptr for x in arrays] for arrays in (reads, changes)]
            CUDA._lane.stream.push(lambda: None, *addresses)

        return CudaLaunch("", "", issue, operands, tuple(changes), 0, 0, 0, aside)

    first, aside = launch((a,), (b,)), launch((b,), (c,), aside=True)
    for after, waits in (
        (launch((b,), (d,)), False),  # both only read b
        (launch((a,), (d,)), False),
        (launch((c,), (d,)), True),  # reads what is written aside
        (launch((a,), (c,)), True),  # writes it too
        (launch((a,), (b,)), True),  # writes what is read aside
        (launch((a,), (b[2:],)), True),  # or a part of it
    ):
        recording = CudaRecording(CUDA._lane, branch=True)
        for one in (first, aside, after):
            recording.append(one)
        recording.replay()
        nodes = recording._graph.nodes
        assert [nodes.index(node) for node in nodes[1].after] == [0]
        assert (nodes[1] in nodes[2].after) == waits
    CUDA.synchronize()


def test_a_branch_that_is_joined_too_late_shows(monkeypatch):
    """What holds the update back is the conflict of its operands with those of dW."""
    monkeypatch.setattr(recording_module, "conflict", lambda a, b: False)
    trainer, step = a_step(BRANCHED)
    plain, other = a_step(CUDA)
    differs = False
    for _ in range(6):
        step.recording.replay(1)
        other.recording.replay(1)
        differs |= any(
            not np.array_equal(*pair) for pair in zip(everything(trainer), everything(plain), strict=True)
        )
    assert differs


# ---- several networks side by side ---------------------------------------------------------------------


def test_networks_side_by_side_are_one_graph_with_a_branch_and_a_workspace_each():
    """Of three recordings two share a lane: they follow each other; the third waits for neither."""
    steps = [a_step(CUDA.beside(k), "bfloat16")[::-1] for k in (0, 1, 0)]
    plain = [a_step(CUDA, "bfloat16")[::-1] for _ in steps]
    lanes = [step.recording.lane for step, _ in steps]
    assert lanes[0] is lanes[2] is not lanes[1]
    assert lanes[0].workspace.data.ptr != lanes[1].workspace.data.ptr
    assert lanes[0].workspace is plain[0][0].recording.lane.workspace
    group = CUDA.side_by_side([step.recording for step, _ in steps])
    before = counts.copy()
    group.replay([3, 2, 3])
    group.replay([1, 1, 1])
    seen = counts - before
    assert (seen["graphs"], seen["graph launches"]) == (2, 3 + 1)  # all twice, the two with three passes, all
    assert len(group._graphs) == 2
    own = len(steps[0][0].recording.launches)
    nodes = group._graphs[0, 1, 2].nodes
    first, second, third = nodes[:own], nodes[own : 2 * own], nodes[2 * own :]
    assert first[0].after == second[0].after == set()
    assert all(node.after <= {*second[:k]} for k, node in enumerate(second))
    assert third[0].after == {first[-1]}
    for (_, trainer), (step, alone), times in zip(steps, plain, (4, 3, 4), strict=True):
        step.recording.replay(times)
        for mine, theirs in zip(everything(trainer), everything(alone), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_lanes_are_as_many_as_branches():
    assert len({id(CUDA.beside(k)) for k in range(40)}) == BRANCHES
    assert CUDA.beside(0) is CUDA
    assert CUDA.beside(3) is CUDA.beside(3 + BRANCHES)
    twin = CUDA.beside(3).with_precision("float32", "tf32")
    assert twin is CUDA.beside(3).with_precision("float32", "tf32")
    assert twin._lane is CUDA.beside(3)._lane
    assert twin is not CUDA.with_precision("float32", "tf32")


@pytest.mark.parametrize("precision", [None, "tf32", "bfloat16", "float16"])
@pytest.mark.parametrize(("hidden", "loss"), [("relu", "mse"), ("gelu", "softmax_cross_entropy")])
def test_launches_say_what_they_change(precision, hidden, loss):
    """Timing restores, and a branch waits for, what a launch says that it changes: it changes nothing else."""
    trainer, step = a_step(CUDA, precision, hidden, loss=loss)
    ops = trainer.net.backend
    for launch in step.recording.launches:
        changed = [span(array) for array in launch.changed]
        others = [array for array in launch.operands if not any(overlap(span(array), c) for c in changed)]
        before = [ops.to_host(array).tobytes() for array in others]
        launch.issue()
        for array, old in zip(others, before, strict=True):
            assert ops.to_host(array).tobytes() == old, launch.name


def span(array):
    return array.data.ptr, array.data.ptr + array.nbytes


def overlap(a, b):
    return a[0] < b[1] and b[0] < a[1]


def test_costs_make_the_step_once_and_time_every_launch():
    trainer, step = a_step()
    twin, other = a_step()
    assert all(cost.seconds == 0 for cost in step.recording.costs())
    before = counts.copy()
    costs = step.recording.costs(5)
    assert (counts - before)["graphs"] == len(step.recording.launches)
    other.recording.replay(1)
    for mine, theirs in zip(everything(trainer), everything(twin), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert trainer.counter(STEP) == 2
    assert trainer.counter(CURSOR) == 16
    # the stand-in's clock counts a microsecond for each launch; the end's mark is one more
    assert all(1e-6 <= cost.seconds <= 1e-6 * (COPIES + 4) / COPIES for cost in costs)
    names = [cost.name for cost in costs]
    assert sum(name.startswith("gemm") for name in names) == 3 + 3 + 2
    assert {cost.scope for cost in costs} == {
        *(f"layer {k} {way}" for k in range(3) for way in ("forward", "backward")), "loss", "update",
    }  # fmt: skip
    assert all(
        cost.read + cost.written > 0 for cost in costs if cost.name.startswith(("gemm", "update", "delta"))
    )


def test_flops_are_those_of_the_cpu():
    """Fused or not, on either device, a step costs the same operations by its equations."""
    totals = []
    for device in (CUDA, stand_in.make_backend(fuse=False), "cpu"):
        _, step = a_step(device, hidden="gelu_tanh")
        totals.append(sum(cost.flops for cost in step.recording.costs()))
    assert totals[0] == totals[1] == totals[2] > 0


@pytest.mark.parametrize(
    ("dtype", "precision"),
    [
        ("float64", None),
        ("float32", None),
        ("float32", "tf32"),
        ("float32", "bfloat16"),
        ("float32", "float16"),
    ],
)
def test_every_product_has_the_precision_that_was_asked_for(dtype, precision):
    net = Network([4, 16, 8, 3], "relu", device=CUDA, dtype=dtype, precision=precision, seed=0)
    step = Step(Trainer(net, "mse", "adam", seed=0), 8, labels=False)
    with net.backend.ordered():
        step.run(1)
    names = [launch.issue.name for launch in step.recording.launches if launch.name.startswith("gemm")]
    assert len(names) == 8
    assert {name.split()[3].split(">")[0] for name in names} == {precision or dtype}


def test_recordings_belong_to_their_thread_and_scope():
    z, b = CUDA.zeros((2, 8), np.float32), CUDA.zeros((8,), np.float32)
    with CUDA.capture(State(CUDA, 1)) as outer, CUDA.scope("here"):
        CUDA.bias_activation(z, b, activation("tanh"), keep=False)
    CUDA.bias_activation(z, b, activation("tanh"), keep=False)
    assert [(launch.scope, launch.name) for launch in outer.launches] == [("here", "bias + tanh 2x8")]


# ---- arrays --------------------------------------------------------------------------------------------


def test_arrays_are_aligned_counted_and_freed():
    start = CUDA.memory()
    arrays = [CUDA.empty((n, 3), np.float16) for n in (1, 7, 100)]
    assert all(array.data.ptr % 256 == 0 for array in arrays)
    assert CUDA.memory().allocated - start.allocated == 2 * 3 * 108
    del arrays
    assert CUDA.memory().allocated == start.allocated
    assert CUDA.memory().peak >= start.allocated + 648


def test_writes_take_what_is_given_then():
    array, values = CUDA.zeros((4,), np.float32), np.arange(4)
    CUDA.write(array, values)
    values[:] = 9  # before the device did it
    np.testing.assert_array_equal(CUDA.to_host(array), [0, 1, 2, 3])
    CUDA.write(array, 7)
    np.testing.assert_array_equal(CUDA.to_host(array), [7] * 4)
    CUDA.write(array[1:3], [1, 2])
    np.testing.assert_array_equal(CUDA.to_host(array), [7, 1, 2, 7])
    CUDA.write(array, CUDA.to_device(np.arange(4)))  # another dtype, on the device
    np.testing.assert_array_equal(CUDA.to_host(array), [0, 1, 2, 3])


def test_to_device_and_copy():
    array = CUDA.to_device([[1, 2], [3, 4]], np.float32)
    assert CUDA.to_device(array) is array
    assert CUDA.to_device(array, np.float32) is array
    double = CUDA.to_device(array, np.float64)
    assert double.dtype == np.float64
    transposed = CUDA.to_device(array.T)
    assert transposed.flags.c_contiguous
    np.testing.assert_array_equal(CUDA.to_host(transposed), [[1, 3], [2, 4]])
    other = CUDA.copy(array)
    CUDA.write(other, 0)
    np.testing.assert_array_equal(CUDA.to_host(array), [[1, 2], [3, 4]])
    assert CUDA.to_host(np.arange(3)).tolist() == [0, 1, 2]  # what is on the host already


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_all_finite(dtype, bad):
    for size in (1, 5, 16, 37):
        values = np.full(size, np.finfo(dtype).max, dtype)
        assert CUDA.all_finite(CUDA.to_device(values))
        values[size // 2] = bad
        assert not CUDA.all_finite(CUDA.to_device(values))


def test_out_of_memory_leaves_the_backend_usable(monkeypatch):
    from gpubp.errors import DeviceMemoryError

    with monkeypatch.context() as patch:
        patch.setattr(MemoryPool, "limit", 0)
        with pytest.raises(DeviceMemoryError, match="out of memory on cuda:0: expected 4,096 free bytes"):
            CUDA.empty((1024,), np.float32)
    assert CUDA.empty((1024,), np.float32).nbytes == 4096


def test_pace_lets_the_host_run_one_call_ahead():
    array = CUDA.zeros((1,), np.float32)
    done = []
    for _ in range(4):
        CUDA.write(array, 1)
        event = Event()
        event.record(CUDA.context.stream)
        done.append(event)
        CUDA.pace()
    assert [event.done for event in done] == [True, True, False, False]
    CUDA.synchronize()
    assert all(event.done for event in done)


# ---- data larger than the device -----------------------------------------------------------------------


class AtOnce:
    """An executor that works in the caller's thread, because the simulator runs one kernel at a time."""

    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, work, *arguments):
        work(*arguments)
        return self

    def result(self):
        pass


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("n", "batch", "limit"), [(41, 4, 500), (24, 8, 1), (10, 16, 300)])
def test_windows_train_as_data_on_the_device_does(monkeypatch, n, batch, limit, weighted):
    monkeypatch.setattr(windows, "ThreadPoolExecutor", AtOnce)
    rng = np.random.default_rng(0)
    x, y, w = rng.standard_normal((n, 4)), rng.integers(0, 3, n), rng.random(n) + 0.5
    weights, losses = [], []
    for bytes_ in (None, limit):
        trainer = Trainer(Network([4, 8, 3], device=CUDA, seed=0), "softmax_cross_entropy", "adam", seed=0)
        sample_weight = w if weighted else None
        history = trainer.fit(
            x, y, epochs=2, batch_size=batch, sample_weight=sample_weight, max_device_bytes=bytes_
        )
        weights.append(trainer.host_parameters().copy())
        losses.append([row["loss"] for row in history.rows])
    np.testing.assert_array_equal(*weights)
    assert losses[0] == losses[1]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_blocks_train_as_on_the_cpu(monkeypatch, weighted, shuffle):
    monkeypatch.setattr(windows, "ThreadPoolExecutor", AtOnce)
    rng = np.random.default_rng(0)
    x, y, w = rng.standard_normal((41, 4)), rng.integers(0, 3, 41), rng.random(41) + 0.5
    weights, losses = [], []
    for device in (CUDA, "cpu"):
        net = Network([4, 8, 3], device=device, dtype="float64", seed=0)
        trainer = Trainer(net, "softmax_cross_entropy", "adam", seed=0)
        source = blocks(x, y, w if weighted else None)
        history = trainer.fit(source, epochs=2, batch_size=4, shuffle=shuffle, max_device_bytes=800)
        weights.append(trainer.host_parameters().copy())
        losses.append([row["loss"] for row in history.rows])
    np.testing.assert_allclose(*weights, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(*losses, rtol=1e-12)


def test_a_window_orders_its_copies_after_what_reads_it_and_before_what_comes():
    """Two streams without an event between them are a race, which the stand-in raises."""
    window = CUDA.window([((4, 2), np.dtype(np.float32))])
    outs = [CUDA.empty((4, 2), np.float32) for _ in range(3)]
    for k, out in enumerate(outs):  # nothing in between waits for the device but `wait`
        window.wait()
        window.host[0][...] = k
        window.load(4)
        window.use()
        CUDA.write(out, window.device[0])
        window.used()
    for k, out in enumerate(outs):
        np.testing.assert_array_equal(CUDA.to_host(out), np.full((4, 2), k))
    window.wait()
    window.load(4)
    with pytest.raises(CudaError, match="race"):
        CUDA.to_host(window.device[0])
