"""A team walks a recorded step: the bits of one thread alone, whoever falls behind, sleeps, or is called elsewhere."""

import threading
import time

import numpy as np
import pytest
from numba import int64

import gpubp
from gpubp.backend import blas, team, threads
from gpubp.backend.accesses import barriers
from gpubp.backend.blas import GemmPointers
from gpubp.backend.cpu import CpuBackend
from gpubp.backend.launch import make_row
from gpubp.kernels.atomics import pause
from gpubp.kernels.compile import cpu_kernel
from gpubp.kernels.replay import COUNTERS, STEP, STOPPED
from gpubp.kernels.rows import BARRIER, WIDTH, read_row, vector
from gpubp.kernels.team import LINE, barrier
from gpubp.training.step import Source, Step

pytestmark = pytest.mark.skipif(
    not threads.can_share(), reason="launches are not shared: BLAS keeps its own threads"
)
BATCH, WIDTHS = 32, [64, 64, 64, 10]


class Walk:
    """A training step over a source, as its table: with l2, weights and a learning rate of each step."""

    def __init__(self, monkeypatch, size, steps, activation="relu", batch=BATCH, widths=WIDTHS):
        monkeypatch.setattr(
            threads, "_threads", size
        )  # products are cut for so many, however few CPUs there are
        ops, rng = CpuBackend(), np.random.default_rng(0)
        net = gpubp.Network(widths, activation, device=ops, seed=0)
        self.trainer = gpubp.Trainer(net, "softmax_cross_entropy", "adam", l2=1e-3)
        x, y = rng.standard_normal((500, widths[0])), rng.integers(0, widths[-1], 500)
        order, rates = rng.integers(0, 500, batch * (steps + 1)), np.linspace(1e-3, 1e-4, 7)
        w = rng.uniform(0.5, 1.5, 500).astype(np.float32)
        source = Source(x.astype(np.float32), y, w, order, rates, 0)
        self.step = Step(self.trainer, batch, labels=True, source=source)
        self.step.run(1)
        launches = self.step.recording.launches
        self.size, self.counters = size, self.trainer.state.counters
        self.table = np.array([launch.row for launch in launches])
        self.table[:, BARRIER] = barriers(launch.accesses for launch in launches)

    def run(self, times, size=None):
        """Passes begun."""
        table, counters = self.table.ctypes.data, self.counters.ctypes.data
        return team.walk(table, len(self.table), counters, times, size or self.size)

    def delayed(self, most, seed=0):
        """Puts a launch in front of each that keeps a member back, now the one, now the other."""
        self.seeds = np.random.default_rng(seed).integers(1, 2**31, LINE * self.size)
        kernel = cpu_kernel(falls_behind, np.float64)
        delays = np.tile(make_row((self.seeds,), (most,), kernel.address), (len(self.table), 1))
        delays[:, BARRIER] = self.table[
            :, BARRIER
        ]  # the barrier comes first: who is late is late for the launch
        self.table[:, BARRIER] = 0
        self.table = np.stack([delays, self.table], axis=1).reshape(-1, WIDTH)
        return self

    def bits(self):
        state = self.trainer.state
        arrays = (self.trainer.net.flat, *self.trainer.slots, state.stats, state.counters, state.hyper)
        return [array.tobytes() for array in arrays]


def falls_behind(real):
    """Keeps a member back in one of four passes, at random, for up to `most` pauses of the core."""

    def kernel(address, me, team):
        row = read_row(address)
        seeds = vector(row, 0, int64)
        seed = (seeds[16 * me] * 1103515245 + 12345) & 0x7FFFFFFF
        seeds[16 * me] = seed
        if (seed >> 8) & 3 == 0:
            for _ in range((seed >> 10) % row[4]):
                pause()

    return kernel


def stops(real):
    """Counts its passes in `seen` and sets counters[STOPPED] in each."""

    def kernel(address, me, team):
        row = read_row(address)
        seen, counters = vector(row, 0, int64), vector(row, 1, int64)
        seen[16 * me] += 1
        barrier(me, team)
        if me == 0:
            counters[STOPPED] = 1

    return kernel


# ---- the same bits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_thousands_of_steps_have_the_bits_of_one_thread_alone(monkeypatch, size, activation):
    times = 2000 if size < 3 else 300  # more than there may be CPUs: each wait may cost a turn of the others
    alone, shared = (Walk(monkeypatch, size, times, activation) for _ in range(2))
    assert alone.run(times, 1) == times
    for part in (1, 2, 7, times - 10):
        assert shared.run(part) == part
    assert shared.counters[STEP] == 1 + times
    assert alone.bits() == shared.bits()


@pytest.mark.parametrize("batch", [1, 15, 16, 17, 33, 130])
def test_odd_batches_have_the_bits_of_one_thread_alone(monkeypatch, batch):
    for size in (2, 3):
        alone, shared = (Walk(monkeypatch, size, 30, "tanh", batch, [33, 70, 7]) for _ in range(2))
        alone.run(30, 1)
        shared.run(30)
        assert alone.bits() == shared.bits()


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("batch", [32, 256])
def test_a_member_that_falls_behind_changes_no_bit(monkeypatch, size, batch):
    times = 200
    alone, shared = (Walk(monkeypatch, size, times, "gelu", batch) for _ in range(2))
    alone.run(times, 1)
    shared.delayed(2000).run(times)
    assert alone.bits() == shared.bits()


@pytest.mark.parametrize("size", [2, 3, 4])
def test_weights_that_stay_with_their_member_have_the_bits_of_one_thread_alone(monkeypatch, size):
    monkeypatch.setattr(GemmPointers, "slow_when_small", False)
    widths, times = [256, 128, 160, 7], 100  # W of 32 and 20 blocks, the first for all these teams
    alone, shared = (Walk(monkeypatch, size, times, "gelu", 32, widths) for _ in range(2))
    alone.run(times, 1)
    shared.delayed(2000).run(times)
    assert alone.bits() == shared.bits()


def test_without_barriers_the_bits_do_change(monkeypatch):
    """So that the test above can fail."""
    alone, shared = (Walk(monkeypatch, 2, 200) for _ in range(2))
    alone.run(200, 1)
    shared.table[:, BARRIER] = 0
    shared.delayed(2000).run(200)
    assert alone.bits() != shared.bits()


def test_barriers_of_a_step_are_needed(monkeypatch):
    """Without one of them the bits change; not in every run, as members must happen to be apart just then.

    Products by BLAS, whatever their size: small ones without it leave hardly a barrier.
    """
    monkeypatch.setattr(GemmPointers, "slow_when_small", False)
    base = Walk(monkeypatch, 2, 200)
    base.run(200, 1)
    places = np.flatnonzero(base.table[:, BARRIER])
    assert len(places) > 3
    needed = 0
    for place in places:
        for seed in range(3):
            shared = Walk(monkeypatch, 2, 200)
            shared.table[place, BARRIER] = 0
            shared.delayed(20_000, seed).run(200)
            if base.bits() != shared.bits():
                needed += 1
                break
    assert needed > len(places) // 2


# ---- asleep and awake, and stopping --------------------------------------------------------------------


def test_members_that_fell_asleep_wake_up(monkeypatch):
    alone, shared = (Walk(monkeypatch, 2, 600) for _ in range(2))
    alone.run(600, 1)
    for _ in range(300):
        shared.run(1)
        time.sleep(0.005)
        shared.run(1)
    assert alone.bits() == shared.bits()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_walk_that_stopped_is_over_for_every_member(size):
    """A member may look at the counter late; whoever resets it after the walk must not send it on."""
    seen, counters = np.zeros(size * LINE, np.int64), np.zeros(COUNTERS, np.int64)
    row = make_row((seen, counters), (), cpu_kernel(stops, np.float64).address)
    busy = [
        threading.Thread(target=np.sort, args=(np.random.default_rng(k).random(2_000_000),)) for k in range(4)
    ]
    for thread in busy:  # who take the cores away at any moment
        thread.start()
    for k in range(2000):
        assert team.walk(row.ctypes.data, 1, counters.ctypes.data, 100, size) == 1
        counters[STOPPED] = 0
        assert (seen[::LINE] == k + 1).all()
    for thread in busy:
        thread.join()


def test_a_training_that_stopped_goes_on_with_the_bits_of_one_thread_alone(monkeypatch):
    def run(walk, size):
        for _ in range(100):
            walk.trainer.net.flat[0], kept = np.nan, walk.trainer.net.flat[0]
            assert walk.run(50, size) == 1
            walk.trainer.net.flat[0], walk.counters[STOPPED] = kept, 0
            assert walk.run(2, size) == 2

    alone, shared = (Walk(monkeypatch, 2, 300) for _ in range(2))
    run(alone, 1)
    run(shared, 2)
    assert alone.bits() == shared.bits()


def test_no_passes_and_no_launches(monkeypatch):
    walk = Walk(monkeypatch, 2, 1)
    before = walk.bits()
    assert walk.run(0) == 0
    assert team.walk(walk.table.ctypes.data, 0, walk.counters.ctypes.data, 5, 2) == 5
    assert walk.bits() == before


# ---- several callers -----------------------------------------------------------------------------------


def test_four_threads_walk_at_once(monkeypatch):
    """One of them has the team, the others walk alone."""
    walks = [Walk(monkeypatch, 2, 300) for _ in range(5)]
    walks[0].run(300, 1)
    callers = [
        threading.Thread(target=lambda walk=walk: [walk.run(10) for _ in range(30)]) for walk in walks[1:]
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert {tuple(walk.bits()) for walk in walks[1:]} == {tuple(walks[0].bits())}


def test_teams_of_two_sizes_at_once(monkeypatch):
    """A thread that needs a team of another size lets the one that works finish."""
    walks = [Walk(monkeypatch, size, 400) for size in (2, 3)]
    alone = [Walk(monkeypatch, size, 400) for size in (2, 3)]
    callers = [
        threading.Thread(target=lambda walk=walk: [walk.run(1) for _ in range(400)], daemon=True)
        for walk in walks
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
        assert not caller.is_alive(), "waits for members that are gone"
    for walk, one in zip(walks, alone, strict=True):
        one.run(400, 1)
        assert walk.bits() == one.bits()


def test_blas_has_its_threads_again_after_a_walk(monkeypatch):
    gemm = blas.find_gemm()
    before = gemm.get_threads()
    walk = Walk(monkeypatch, 2, 100)
    try:
        for count in (2, 1):
            gemm.set_threads(count)
            walk.run(50)
            assert gemm.get_threads() == team.blas_threads() == count
    finally:
        gemm.set_threads(before)


def test_the_number_of_threads_does_not_waver_while_others_walk(monkeypatch):
    """Else a product would be cut otherwise, and the bits with it."""
    gemm = blas.find_gemm()
    before = gemm.get_threads()
    walk = Walk(monkeypatch, 2, 20_000)
    done = threading.Event()

    def work():
        while not done.is_set():
            team.walk(walk.table.ctypes.data, 1, walk.counters.ctypes.data, 1, 2)

    callers = [threading.Thread(target=work) for _ in range(2)]
    try:
        gemm.set_threads(2)
        for caller in callers:
            caller.start()
        assert {team.blas_threads() for _ in range(300_000)} == {2}
    finally:
        done.set()
        for caller in callers:
            caller.join()
        gemm.set_threads(before)
