"""Explains a training step: every launch with its bytes, FLOPs, time and share of what the machine can do."""

from __future__ import annotations

import statistics
import warnings
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpubp.backend import LaunchCost, Recording
from gpubp.errors import NumericalError
from gpubp.kernels.replay import CURSOR, STOPPED
from gpubp.network import Network

from .ceilings import GROUP_SECONDS, bandwidth_at, call_seconds, peak_rate, replay_seconds
from .step import Source, Step

if TYPE_CHECKING:
    from .trainer import Trainer

DATA_BYTES = 64 << 20  # the synthetic data set that batches are gathered from: larger than most caches
_WARM_UP = 3  # steps before anything is timed; the first one is made while it is recorded


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
    takes; `step_seconds` is the median of the whole step as `fit` replays it. `peak` is the best rate of square
    products in this dtype, or that of a launch where it is higher, FLOP/s. The bandwidth of a launch, bytes/s, is
    that of a pass which reads, adds to and writes back as many bytes as the launch moves, again and again: where
    they fit into a cache, that of the cache.
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
        return "\n".join(_table(self))


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
    recording.costs(_WARM_UP - 1)
    costs = recording.costs(repeats)
    step_seconds = _step_seconds(step, recording, repeats)
    if step.trainer.counter(STOPPED):
        raise NumericalError(
            "explain: expected a network with finite gradients on random standardized inputs; got NaN or infinity; "
            "explain it before it diverges"
        )
    call = call_seconds(ops)
    reached = max(cost.flops / max(cost.seconds, 1e-9) for cost in costs)
    peak = max(peak_rate(ops, trainer.net.dtype), reached)
    bandwidths = {
        size: bandwidth_at(ops, trainer.net.dtype, size) for size in {c.read + c.written for c in costs}
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
        copy = Same(net, trainer.loss.name, trainer.optimizer, l1=trainer.l1, l2=trainer.l2, seed=0)
    copy.set_lr(0.0)
    if labels is None:
        labels = trainer.loss.name == "softmax_cross_entropy"
    per_example = net.dtype.itemsize * (net.n_in + net.n_out)
    examples = max(1, DATA_BYTES // per_example)
    x = rng.standard_normal((examples, net.n_in), np.float32)
    y = rng.integers(0, net.n_out, examples) if labels else rng.random((examples, net.n_out))
    order = rng.integers(0, examples, batch * (_WARM_UP + repeats))
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


def _step_seconds(step: Step, recording: Recording, repeats: int) -> float:
    """Median time of one replayed step; each time the cursor is put back, so that the order never runs out."""
    counters, seconds = step.trainer.state.counters, []
    times = 1
    for _ in range(repeats):
        step.trainer.net.backend.write(counters[CURSOR : CURSOR + 1], [0])
        seconds.append(replay_seconds(recording, times))
        times = max(1, min(repeats, int(GROUP_SECONDS / seconds[-1])))
    return statistics.median(seconds)


# the table

_BELIEVABLE = 1.1  # a share up to this comes of the noise of two measurements
_DISTURBED = (
    ">100 %: the limit was measured too low, beside other work on this machine; repeat it when that is done."
)


def _table(e: Explanation) -> list[str]:
    """Lines of at most 110 columns."""
    rows, flops = e.rows, sum(row.flops for row in e.rows)
    titles = ("scope", "launch", "KB read", "written", "MFLOP", "us", "time", "limit", "by")
    total = (sum(r.read for r in rows), sum(r.written for r in rows), flops, e.sum_seconds)
    least = sum(row.ceiling_seconds for row in rows) / e.sum_seconds if e.sum_seconds else None
    rate, achieved = e.batch_size / e.step_seconds, flops / e.step_seconds / 1e9
    return [
        f"One training step of {e.batch_size} examples on {_cut(e.device, 76)}",
        _cut(e.network, 110),
        "",
        "{:<16} {:<34} {:>8} {:>8} {:>8} {:>8} {:>6} {:>6} {}".format(*titles),
        *(
            _line(
                r.scope,
                r.name,
                (r.read, r.written, r.flops, r.seconds),
                r.time_share,
                r.ceiling_share,
                r.bound,
            )
            for r in rows
        ),
        _line("", f"{len(rows)} launches", total, 1.0, least, ""),
        "",
        f"Replayed, a step takes {1e6 * e.step_seconds:,.1f} us: {rate:,.0f} samples/s, {achieved:.1f} GFLOP/s.",
        f"limit: share of what this machine allows, {e.peak / 1e9:.1f} GFLOP/s (the best product) or the bandwidth of",
        "a plain pass over as many bytes, whichever takes longer.",
        *([_DISTURBED] if any((row.ceiling_share or 0) > _BELIEVABLE for row in rows) else []),
    ]


def _line(
    scope: str,
    name: str,
    cost: tuple[int, int, int, float],
    time_share: float,
    ceiling_share: float | None,
    bound: str,
) -> str:
    read, written, flops, seconds = cost
    numbers = (_number(read / 1e3), _number(written / 1e3), _number(flops / 1e6), _number(1e6 * seconds))
    share = "-" if ceiling_share is None else f"{100 * ceiling_share:.0f} %"
    share = ">100 %" if ceiling_share is not None and ceiling_share > _BELIEVABLE else share
    columns = " ".join(f"{number:>8}" for number in numbers)
    line = (
        f"{_cut(scope, 16):<16} {_cut(name, 34):<34} {columns} {100 * time_share:>4.1f} % {share:>6} {bound}"
    )
    return line.rstrip()


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _cut(text: str, width: int) -> str:
    """The text, its middle left out where it is longer than the column."""
    half = width // 2
    return text if len(text) <= width else f"{text[: width - half]}…{text[len(text) - half + 1 :]}"
