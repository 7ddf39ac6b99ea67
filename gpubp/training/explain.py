"""Explains a training step: every launch with its bytes, FLOPs, time and share of what the machine can do."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpubp.backend import Backend, LaunchCost, Recording, State
from gpubp.errors import NumericalError
from gpubp.kernels.activations import activation
from gpubp.kernels.replay import CURSOR, STOPPED
from gpubp.network import Network

from .step import Source, Step

if TYPE_CHECKING:
    from .trainer import Trainer

DATA_BYTES = 64 << 20  # the synthetic data set, larger than most caches, as a real one is
_PROBE_SECONDS = 0.01
_PROBES = 5
_TRIVIAL = 500  # calls of a launch without work, to know what a call alone takes


@dataclass(frozen=True)
class LaunchRow:
    """One launch: its cost, its share of the step's time, and the least time that the machine allows it.

    `ceiling_seconds` = max(flops / peak, bytes / bandwidth), `bound` says by which: "compute" or "memory".
    `ceiling_share` = ceiling_seconds / seconds; None where the launch is too short to be timed.
    """

    scope: str
    name: str
    read: int
    written: int
    flops: int
    seconds: float
    time_share: float
    bandwidth: float
    ceiling_seconds: float
    bound: str

    @property
    def ceiling_share(self) -> float | None:
        """Share of the measured ceiling that this launch reaches."""
        return self.ceiling_seconds / self.seconds if self.seconds > 0 else None


@dataclass(frozen=True)
class Explanation:
    """The launches of one training step, in order, and their totals; `print` shows a table.

    Bytes count each operand once, without the scratch of reductions; FLOPs are those of the equations (a function
    counts as one). `seconds` of a launch is the median over repetitions of the step, less what a call from Python
    takes; `step_seconds` is the median of the whole step as `fit` replays it. `peak` is the rate of a large square
    product in this dtype, FLOP/s. The bandwidth of a launch, bytes/s, is that of a pass which reads, adds to and
    writes back as many bytes as the launch moves, again and again: that of a cache where the bytes fit into one.
    """

    rows: tuple[LaunchRow, ...]
    batch_size: int
    step_seconds: float
    peak: float
    network: str
    device: str

    @property
    def sum_seconds(self) -> float:
        """Sum of the launches' times, which `time_share` refers to."""
        return sum(row.seconds for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: what is printed, unrounded."""
        rows = [asdict(row) | {"ceiling_share": row.ceiling_share} for row in self.rows]
        return asdict(self) | {"rows": rows, "sum_seconds": self.sum_seconds}

    def __str__(self) -> str:
        rows, ceiling = self.rows, sum(row.ceiling_seconds for row in self.rows)
        total = _line(
            "",
            f"{len(rows)} launches",
            sum(row.read for row in rows),
            sum(row.written for row in rows),
            sum(row.flops for row in rows),
            self.sum_seconds,
            1.0,
            ceiling / self.sum_seconds if self.sum_seconds else None,
            "",
        )
        head = (
            f"{'scope':<16} {'launch':<36} {'KB read':>9} {'KB writ.':>9} {'MFLOP':>9} {'us':>9} {'time':>6} "
            f"{'of ceiling':>9} by"
        )
        lines = [
            _line(
                r.scope, r.name, r.read, r.written, r.flops, r.seconds, r.time_share, r.ceiling_share, r.bound
            )
            for r in rows
        ]
        return "\n".join(
            [
                f"One training step, batch {self.batch_size}, on {self.device}",
                _cut(self.network, 110),
                "",
                head,
                *lines,
                total,
                "",
                f"Replayed, the step takes {1e6 * self.step_seconds:.1f} us: "
                f"{self.batch_size / self.step_seconds:,.0f} samples/s, "
                f"{sum(row.flops for row in rows) / self.step_seconds / 1e9:.1f} GFLOP/s.",
                f"Ceiling: {self.peak / 1e9:.1f} GFLOP/s (large product), or the bandwidth of a plain pass over as many "
                "bytes.",
            ]
        )


def explain(
    trainer: Trainer,
    batch_size: int,
    *,
    labels: bool | None = None,
    sample_weight: bool = False,
    repeats: int = 30,
) -> Explanation:
    """`Trainer.explain`, whose docstring says what it does. Nothing of the trainer is touched: a copy runs the step."""
    step = _copy_step(trainer, batch_size, labels, sample_weight, repeats)
    recording, ops = step.recording, trainer.net.backend
    assert recording is not None
    rewind = _rewinder(step)
    rewind()
    recording.costs(2)  # what runs for the first time is slower
    rewind()
    costs = recording.costs(repeats)
    step_seconds = _replay_seconds(recording, rewind, repeats)
    if step.trainer.counter(STOPPED):
        raise NumericalError(
            "explain: expected a network with finite gradients on random standardized inputs; got NaN or infinity; "
            "explain it before it diverges"
        )
    call = _call_seconds(ops)
    peak = _peak(ops, trainer.net.dtype)
    bandwidths = {
        size: _bandwidth(ops, trainer.net.dtype, size) for size in {c.read + c.written for c in costs}
    }
    total = sum(max(cost.seconds - call, 0.0) for cost in costs) or 1.0
    rows = [_row(cost, call, total, peak, bandwidths[cost.read + cost.written]) for cost in costs]
    device = f"{ops.description}, {trainer.net.dtype.name}"
    return Explanation(tuple(rows), batch_size, step_seconds, peak, repr(trainer.net), device)


def _row(cost: LaunchCost, call: float, total: float, peak: float, bandwidth: float) -> LaunchRow:
    seconds = max(cost.seconds - call, 0.0)
    compute, memory = cost.flops / peak, (cost.read + cost.written) / bandwidth
    return LaunchRow(
        cost.scope,
        cost.name,
        cost.read,
        cost.written,
        cost.flops,
        seconds,
        seconds / total,
        bandwidth,
        max(compute, memory),
        "compute" if compute > memory else "memory",
    )


# the step


def _copy_step(trainer: Trainer, batch: int, labels: bool | None, sample_weight: bool, repeats: int) -> Step:
    """The trainer's step, captured, over a copy of its network and a synthetic data set. Its learning rate is 0."""
    from .trainer import Trainer as Same

    original, ops, rng = trainer.net, trainer.net.backend, np.random.default_rng(0)
    net = Network.from_config(original.config(), device=ops)
    net.load_parameters({name: ops.to_host(view) for name, view in original.parameters().items()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what it has to say was said when the trainer was made
        copy = Same(net, trainer.loss, trainer.optimizer, l1=trainer.l1, l2=trainer.l2, seed=0)
    copy.set_lr(0.0)
    if labels is None:
        labels = trainer.loss.name == "softmax_cross_entropy"
    per_example = net.dtype.itemsize * (net.n_in + net.n_out)
    examples = max(1, min(batch * (repeats + 2), DATA_BYTES // per_example))
    x = rng.standard_normal((examples, net.n_in), np.float32)
    y = rng.integers(0, net.n_out, examples) if labels else rng.random((examples, net.n_out))
    order = rng.integers(0, examples, batch * (repeats + 2))
    source = Source(
        ops.to_device(x, net.dtype),
        ops.to_device(y, np.int64 if labels else net.dtype),
        ops.to_device(np.ones(examples), net.dtype) if sample_weight else None,
        ops.to_device(order, np.int64),
        ops.zeros((1,), np.float64),
        0,
    )
    step = Step(copy, batch, labels=labels, source=source)
    step.run(1)
    return step


def _rewinder(step: Step) -> Callable[[], None]:
    """Puts the cursor back to the first batch: the order has enough batches for one round of repetitions."""
    ops, counters = step.trainer.net.backend, step.trainer.state.counters
    return lambda: ops.write(counters[CURSOR : CURSOR + 1], [0])


def _replay_seconds(recording: Recording, rewind: Callable[[], None], times: int) -> float:
    """Median time of one replayed step, over `_PROBES` replays of `times` steps."""
    seconds = []
    for _ in range(_PROBES):
        rewind()
        seconds.append(_timed(recording, times))
    return statistics.median(seconds)


# what the machine can do


def _timed(recording: Recording, times: int) -> float:
    start = time.perf_counter()
    recording.replay(times)
    return (time.perf_counter() - start) / times


def _fastest(recording: Recording) -> float:
    """Least time of one pass, over `_PROBES` replays of about `_PROBE_SECONDS`."""
    recording.replay(1)
    times = max(1, min(100_000, int(_PROBE_SECONDS / max(_timed(recording, 1), 1e-9))))
    return min(_timed(recording, times) for _ in range(_PROBES))


def _call_seconds(ops: Backend) -> float:
    """What timing one launch from Python adds to its work: the median of a launch that does next to nothing."""
    state = State(ops, 1)
    with ops.capture(state) as recording:
        ops.advance(0, ops.zeros((0,), np.float64), 0, state)
    return max(recording.costs(_TRIVIAL)[0].seconds - _fastest(recording), 0.0)


def _peak(ops: Backend, dtype: Any) -> float:
    """FLOP/s of a square product, large enough to take milliseconds."""
    n, seconds = 512, 0.0
    while seconds < _PROBE_SECONDS / 2:
        n *= 2
        a, b, c = (ops.zeros((n, n), dtype) for _ in range(3))
        with ops.capture(State(ops, 1)) as recording:
            ops.matmul(a, b, out=c)
        seconds = _fastest(recording)
    return 2.0 * n**3 / seconds


def _bandwidth(ops: Backend, dtype: Any, size: int) -> float:
    """Bytes/s of the pass z = z + b over `size` bytes: half of them read, half written, in place."""
    columns = 512
    z = ops.zeros((max(1, round(size / (2 * np.dtype(dtype).itemsize * columns))), columns), dtype)
    b = ops.zeros((columns,), dtype)
    with ops.capture(State(ops, 1)) as recording:
        ops.bias_activation(z, b, activation("identity"), keep=False)
    return 2.0 * z.nbytes / _fastest(recording)


# the table


def _cut(text: str, width: int) -> str:
    """The text, its middle left out where it is longer than the column."""
    half = width // 2
    return text if len(text) <= width else f"{text[: width - half]}…{text[len(text) - half + 1 :]}"


def _line(
    scope: str,
    name: str,
    read: int,
    written: int,
    flops: int,
    seconds: float,
    time_share: float,
    ceiling_share: float | None,
    bound: str,
) -> str:
    share = "-" if ceiling_share is None else f"{100 * ceiling_share:.0f} %"
    return (
        f"{_cut(scope, 16):<16} {_cut(name, 36):<36} {read / 1e3:>9,.1f} {written / 1e3:>9,.1f} {flops / 1e6:>9,.2f} "
        f"{1e6 * seconds:>9,.1f} {100 * time_share:>4.1f} % {share:>6} {bound}"
    )
