"""Times training steps as `fit` replays them, and says what the machine's ceilings would allow each."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpubp.backend import Backend, LaunchCost
from gpubp.network import Network
from gpubp.training import Trainer
from gpubp.training.ceilings import replay_seconds
from gpubp.training.step import Step

from .bench_plan import Point

_GROUP = 5e-3  # seconds that one reading of the clock covers at least
_FEWEST = 5  # readings of a round


class Timed:
    """One training step (relu, softmax cross-entropy of class numbers, Adam) and the readings of its time."""

    def __init__(self, ops: Backend, point: Point) -> None:
        self.ops, self.point = ops, point
        rng, (n_in, n_out) = np.random.default_rng(0), (point.layers[0], point.layers[-1])
        with ops.ordered():
            net = Network(list(point.layers), "relu", device=ops, dtype=point.dtype, seed=0)
            trainer = Trainer(net, "softmax_cross_entropy", "adam", seed=0)
            trainer.set_lr(0.0)  # the same work, and the weights stay what they are
            self._step = Step(trainer, point.batch, labels=True)
            x = rng.standard_normal((point.batch, n_in), np.float32).astype(net.dtype)
            self._step.fill(x, rng.integers(0, n_out, point.batch), np.ones(point.batch, net.dtype))
            self._step.run(2)
        assert self._step.recording is not None
        self.recording = self._step.recording
        self.costs: list[LaunchCost] = self.recording.costs()
        self.rounds: list[list[float]] = []
        self._times = 0

    def read(self, seconds: float) -> None:
        """One round: readings of the time of a step until `seconds` are over."""
        with self.ops.ordered():
            if not self._times:
                once = min(replay_seconds(self.ops, self.recording, 1) for _ in range(3))
                self._times = max(1, math.ceil(_GROUP / max(once, 1e-9)))
            readings: list[float] = []
            end = time.perf_counter() + seconds
            while len(readings) < _FEWEST or time.perf_counter() < end:
                readings.append(replay_seconds(self.ops, self.recording, self._times))
        self.rounds.append(readings)

    def result(self, ceilings: Mapping[str, Any]) -> dict[str, Any]:
        """Plain values. `noise` is the distance of the quartiles of all readings, relative to their median."""
        readings = sorted(itertools.chain.from_iterable(self.rounds))
        seconds = statistics.median(readings)
        low, _, high = statistics.quantiles(readings, n=4)
        flops = sum(cost.flops for cost in self.costs)
        limit = limit_seconds(self.costs, ceilings, self.point.dtype)
        peak = ceilings["peak"][self.point.dtype]
        return {
            "layers": list(self.point.layers),
            "batch": self.point.batch,
            "dtype": self.point.dtype,
            "seconds": seconds,
            "fastest_seconds": readings[0],
            "noise": (high - low) / seconds,
            "readings": len(readings),
            "flops": flops,
            "bytes": sum(cost.read + cost.written for cost in self.costs),
            "launches": len(self.costs),
            "samples_per_second": self.point.batch / seconds,
            "flops_per_second": flops / seconds,
            "share_of_peak": flops / seconds / peak,
            "limit_seconds": limit,
            "share_of_limit": limit / seconds,
        }


def limit_seconds(costs: Sequence[LaunchCost], ceilings: Mapping[str, Any], dtype: str) -> float:
    """The least time: of each launch at the best product's rate or the bandwidth of as many bytes, the longer."""
    peak, passes = float(ceilings["peak"][dtype]), ceilings["bandwidth"]
    moved = [cost.read + cost.written for cost in costs]
    return sum(
        max(cost.flops / peak, size / bandwidth(passes, size))
        for cost, size in zip(costs, moved, strict=True)
    )


def bandwidth(measured: Sequence[Mapping[str, float]], size: int) -> float:
    """Bytes/s of a pass over `size` bytes: between the measured sizes on a straight line of the logarithms."""
    sizes = np.log([one["bytes"] for one in measured])
    rates = np.log([one["bytes_per_second"] for one in measured])
    return float(np.exp(np.interp(np.log(max(size, 1)), sizes, rates)))
