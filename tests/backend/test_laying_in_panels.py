"""Which matrices of a step lie in panels: a batch that is gathered, and read by columns alone."""

import numpy as np
import pytest

import gpubp
from gpubp import layers
from gpubp.backend import State, recording, threads
from gpubp.backend.accesses import barriers
from gpubp.backend.blas import GemmPointers
from gpubp.backend.cpu import CpuBackend
from gpubp.backend.panels import lay_in_panels
from gpubp.errors import NumericalError
from gpubp.training.step import Source, Step

pytestmark = pytest.mark.skipif(
    not threads.can_share(), reason="launches are not shared: BLAS keeps its own threads"
)
N = 200


@pytest.fixture(autouse=True)
def two_members(monkeypatch):
    monkeypatch.setattr(threads, "_threads", 2)
    monkeypatch.setattr(GemmPointers, "slow_when_small", False)


def made(widths=(784, 64, 10), batch=32, gathered=True, dtype="float32", **options):
    """A step, captured, and its trainer: its rows come from a data set, or are filled in."""
    net = gpubp.Network(list(widths), "relu", device=CpuBackend(), dtype=dtype, seed=0)
    trainer = gpubp.Trainer(net, "softmax_cross_entropy", "adam", seed=0, **options)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((N, net.n_in)).astype(dtype), rng.integers(0, 10, N)
    source = Source(x, y, None, rng.permutation(N), np.full(8, 1e-3), 0) if gathered else None
    step = Step(trainer, batch, labels=True, source=source)
    if not gathered:
        step.fill(x[:batch], y[:batch], np.ones(batch, dtype))
    step.run(1)
    return step, trainer


def panels_of(step):
    """(name, panels) of each launch that could take the step's rows in panels."""
    step.recording.table()
    launches = [one for one in step.recording.launches if one.columns is not None]
    at = step.x.ctypes.data
    return {one.name: int(one.row[one.columns[1]]) for one in launches if one.columns[0].ctypes.data == at}


def test_a_gathered_batch_that_is_read_by_columns_lies_in_panels():
    found = panels_of(made()[0])
    assert found == {"gather 32x784": 2, "gemm 32x784x64": 2, "gemm 784x32x64": 2}


def test_what_is_filled_in_lies_as_it_was():
    assert set(panels_of(made(gathered=False)[0]).values()) == {0}


@pytest.mark.parametrize(
    ("widths", "batch"),
    [
        ((64, 64, 10), 32),  # more rows than a quarter of the columns: weights do not stay
        ([layers.LayerNorm(784), layers.Dense(784, 10, "relu")], 32),  # another reads rows
        ([layers.Dropout(0.5), layers.Dense(784, 10, "relu")], 32),
    ],
)
def test_what_is_read_otherwise_lies_in_rows(widths, batch):
    assert set(panels_of(made(widths, batch)[0]).values()) == {0}


def test_one_member_needs_none(monkeypatch):
    monkeypatch.setattr(threads, "_threads", 1)
    assert set(panels_of(made()[0]).values()) == {0}


def test_nobody_waits_for_a_gather_by_columns():
    step, _ = made()
    launches = step.recording.launches
    waits = barriers(lay_in_panels(launches, 2))
    by_name = dict(zip((one.name for one in launches), waits, strict=True))
    assert not by_name["gemm 32x784x64"]
    rows = barriers(one.accesses for one in launches)
    assert dict(zip((one.name for one in launches), rows, strict=True))["gemm 32x784x64"]


def test_micro_batches_of_different_sizes_share_one_place():
    step, _ = made(batch=33, accumulate=2)  # 17 and 16 rows
    assert set(panels_of(step).values()) == {2}


class Made:
    """Launches over one piece of memory: gathers into its first rows, and products that read them."""

    def __init__(self):
        self.ops, self.x = CpuBackend(), np.zeros((32, 784))
        self.source, self.order = np.random.default_rng(0).standard_normal((40, 784)), np.arange(40)
        self.state = State(self.ops, 0)

    def gather(self, rows=32):
        self.ops.gather(self.source, self.order, self.x[:rows], self.state)

    def read(self, x):
        self.ops.matmul(x.T, np.ones((len(x), 64)))

    def both(self):
        self.ops.matmul(self.x.T, self.x)


@pytest.mark.parametrize(
    ("launches", "laid"),
    [
        ([lambda m: m.gather(), lambda m: m.read(m.x)], True),
        (
            [lambda m: m.gather(), lambda m: m.read(m.x), lambda m: m.gather(16), lambda m: m.read(m.x[:16])],
            True,
        ),
        (
            [lambda m: m.gather(16), lambda m: m.read(m.x[:16]), lambda m: m.gather(), lambda m: m.read(m.x)],
            True,
        ),
        (  # the rest of the larger one is read as it lies
            [
                lambda m: m.gather(),
                lambda m: m.read(m.x[16:]),
                lambda m: m.gather(16),
                lambda m: m.read(m.x[:16]),
            ],
            False,
        ),
        ([lambda m: m.gather()], False),  # whoever captured it reads it
        ([lambda m: m.read(m.x), lambda m: m.gather()], False),  # what was filled in before
        ([lambda m: m.gather(), lambda m: m.both()], False),  # once by columns, once as it lies
        ([lambda m: m.gather(), lambda m: m.read(m.x.reshape(64, 392))], False),
        ([lambda m: m.gather(), lambda m: m.gather(16), lambda m: m.read(m.x)], False),
        ([lambda m: m.gather(16), lambda m: m.read(m.x[:16]), lambda m: m.read(m.x[16:])], True),  # beside it
    ],
)
def test_which_launches_allow_panels(launches, laid):
    made = Made()
    with made.ops.capture(made.state) as found:
        for launch in launches:
            launch(made)
    waits = barriers(lay_in_panels(found.launches, 2))
    gathers = [k for k, one in enumerate(found.launches) if one.name.startswith("gather")]
    assert {int(found.launches[k].row[13]) for k in gathers} == ({2} if laid else {0})
    if laid and len(gathers) == 2:
        assert waits[gathers[1]]  # its panels lie where those of the other are read


def test_a_launch_that_reads_rows_after_all_brings_them_back():
    step, _ = made()
    assert set(panels_of(step).values()) == {2}
    launches = step.recording.launches
    reader = next(one for one in launches if one.name == "bias + relu 32x64")
    reader.accesses += (next(one for one in launches if one.name == "gather 32x784").accesses[-1],)
    lay_in_panels(launches, 2)
    assert set(panels_of(step).values()) == {0}


GATED = [layers.GatedDense(784, 32, "silu"), layers.Dense(32, 10, "identity")]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("team", "members"), [(2, 1), (2, 2), (3, 3), (4, 2)])
@pytest.mark.parametrize(
    ("widths", "batch", "accumulate"), [((784, 64, 10), 32, 1), ((1500, 40, 10), 33, 2), (GATED, 32, 1)]
)
def test_training_is_that_of_rows_bit_for_bit(monkeypatch, widths, batch, accumulate, team, members, dtype):
    found = []
    for laid in (True, False):
        monkeypatch.setattr(threads, "_threads", team)
        if not laid:
            monkeypatch.setattr(
                recording, "lay_in_panels", lambda launches, team: [x.accesses for x in launches]
            )
        step, trainer = made(widths, batch, dtype=dtype, accumulate=accumulate)
        assert set(panels_of(step).values()) == {team if laid else 0}
        monkeypatch.setattr(threads, "_threads", members)  # others walk the pieces of the team
        step.run(4)
        found.append(trainer.net.flat.tobytes())
    assert found[0] == found[1]


def test_not_a_number_is_found_where_rows_lay_in_panels():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((N, 784)).astype(np.float32), rng.integers(0, 10, N)
    net = gpubp.Network([784, 64, 10], "relu", device=CpuBackend(), seed=0)
    trainer = gpubp.Trainer(net, "softmax_cross_entropy", "adam", seed=0)
    net.layers[0].W[783] = 10
    x[150, 783] = 3e38  # finite; its product with any other row of W would be, too
    with pytest.raises(NumericalError, match=r"training step 5: .* in the output of layer 0"):
        trainer.fit(x, y, epochs=1, batch_size=32, shuffle=False)
