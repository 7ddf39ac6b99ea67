"""Explains a training step: every launch with its bytes, FLOPs, time and share of what the machine can do."""

from __future__ import annotations

import statistics
import warnings
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gpubp.backend import LaunchCost, Recording
from gpubp.errors import NumericalError
from gpubp.kernels.replay import CURSOR, STOPPED
from gpubp.network import Network

from .ceilings import GROUP_SECONDS, bandwidth_at, call_seconds, peak_rate, replay_seconds
from .explanation import Explanation, LaunchRow
from .peak import remember_peak
from .step import Source, Step

if TYPE_CHECKING:
    from .trainer import Trainer

DATA_BYTES = 64 << 20  # the synthetic data set that batches are gathered from: larger than most caches
_WARM_UP = 3  # steps before anything is timed; the first one is made while it is recorded


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
    best = peak_rate(ops, trainer.net.dtype)
    remember_peak(ops, trainer.net.dtype, best)  # for the progress of later runs
    peak = max(best, reached)
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


def _targets(
    rng: np.random.Generator, shape: tuple[int, int], low: float, high: float
) -> npt.NDArray[np.float64]:
    """Numbers from 0 to 1, or an interval within what the loss is defined for."""
    low = low if np.isfinite(low) else min(0.0, high - 1)
    return rng.uniform(low, min(high, low + 1), shape)


def _copy_step(trainer: Trainer, batch: int, labels: bool | None, sample_weight: bool, repeats: int) -> Step:
    """The trainer's step, captured, over a copy of its network and a synthetic data set. Its learning rate is 0."""
    from .trainer import Trainer as Same

    original, ops, rng = trainer.net, trainer.net.backend, np.random.default_rng(0)
    net = Network.from_config(original.config(), device=ops)
    net.load_parameters({name: ops.to_host(view) for name, view in original.parameters().items()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what it has to say was said when the trainer was made
        copy = Same(net, trainer.loss, trainer.optimizer, **trainer.terms(), seed=0)
    copy.set_lr(0.0)
    if labels is None:
        labels = trainer.loss.softmax
    per_example = net.dtype.itemsize * (net.n_in + net.n_out)
    examples = max(1, DATA_BYTES // per_example)
    x = rng.standard_normal((examples, net.n_in), np.float32)
    for column, count in net.layers[0].categories.items():
        x[:, column] = rng.integers(0, count, examples)
    y = (
        rng.integers(0, net.n_out, examples)
        if labels
        else _targets(rng, (examples, net.n_out), *trainer.loss.targets)
    )
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
        seconds.append(replay_seconds(step.trainer.net.backend, recording, times))
        times = max(1, min(repeats, int(GROUP_SECONDS / seconds[-1])))
    return statistics.median(seconds)
