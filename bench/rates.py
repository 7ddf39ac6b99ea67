"""Times a recording under pytest-benchmark: bytes/s, FLOP/s and the share of what this machine can do."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gpubp.backend import Backend, LaunchCost, Recording
from gpubp.training.ceilings import bandwidth_at, peak_rate

SECONDS = 0.15  # that one case is timed for
READING = 2e-4  # what one reading of the clock covers at least, where it can
ROUNDS = (5, 200)  # fewest and most readings


@dataclass(frozen=True)
class Row:
    """One figure: seconds of one launch or one step, the median; what it moved and computed in them.

    `least_seconds` is what the machine's ceilings allow: over the launches, the sum of max(flops / peak,
    bytes / bandwidth); `bound` says which of the two makes up most of it. `share` = least_seconds / seconds.
    """

    name: str
    shape: str
    dtype: str
    seconds: float
    bytes_per_second: float
    flops_per_second: float
    least_seconds: float
    bound: str

    @property
    def share(self) -> float:
        return self.least_seconds / self.seconds


class Ceilings:
    """What this machine can do, each measured once, when it is asked for."""

    def __init__(self, ops: Backend) -> None:
        self._ops = ops
        self._peaks: dict[str, float] = {}
        self._bandwidths: dict[tuple[str, int], float] = {}

    def peak(self, dtype: str) -> float:
        """FLOP/s of the fastest square product."""
        if dtype not in self._peaks:
            self._peaks[dtype] = peak_rate(self._ops, dtype)
        return self._peaks[dtype]

    def bandwidth(self, dtype: str, size: int) -> float:
        """Bytes/s of a pass over so many bytes again and again: that of a cache where they fit into one."""
        if (dtype, size) not in self._bandwidths:
            self._bandwidths[dtype, size] = bandwidth_at(self._ops, dtype, size)
        return self._bandwidths[dtype, size]

    def least(self, dtype: str, costs: Sequence[LaunchCost]) -> tuple[float, str]:
        """The least seconds that launches can take, and by which of the two ceilings."""
        compute = memory = 0.0
        for cost in costs:
            size = cost.read + cost.written
            by_rate, by_bytes = (
                cost.flops / self.peak(dtype),
                size / self.bandwidth(dtype, size) if size else 0.0,
            )
            compute, memory = (
                (compute + by_rate, memory) if by_rate > by_bytes else (compute, memory + by_bytes)
            )
        return compute + memory, "compute" if compute > memory else "memory"


def report(
    benchmark: Any,
    ceilings: Ceilings,
    rows: list[Row],
    recording: Recording,
    *,
    name: str,
    shape: str,
    dtype: str,
    copies: int = 1,
    restore: Callable[[], object] | None = None,
) -> None:
    """Times a recording that holds `copies` of what is measured, and adds the figure to the table and to the JSON.

    `restore` puts back, outside the time, what a replay overwrites; without it a reading covers several replays.
    """
    times = 1 if restore is not None else _times(recording)

    def replay() -> None:
        recording.replay(times)

    replay()
    once = _clock(replay)
    rounds = min(max(int(SECONDS / max(once, 1e-9)), ROUNDS[0]), ROUNDS[1])
    benchmark.pedantic(replay, setup=restore, rounds=rounds, iterations=1, warmup_rounds=1)
    if benchmark.stats is None:  # --benchmark-disable: validated, not timed
        return
    seconds = benchmark.stats.stats.median / (times * copies)
    costs = recording.costs()
    least, bound = ceilings.least(dtype, costs)
    moved, flops = sum(cost.read + cost.written for cost in costs), sum(cost.flops for cost in costs)
    row = Row(
        *(name, shape, dtype, seconds, moved / copies / seconds, flops / copies / seconds),
        *(least / copies, bound),
    )
    rows.append(row)
    benchmark.extra_info.update(asdict(row), share=row.share)


def _times(recording: Recording) -> int:
    """Replays that fill one reading of the clock."""
    recording.replay(1)
    times = 1
    while _clock(functools.partial(recording.replay, times)) < READING and times < 1 << 16:
        times *= 2
    return times


def _clock(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def lines(rows: Sequence[Row]) -> list[str]:
    """The table, for a terminal."""
    found = [
        "",
        f"{'':34} {'shape':>24} {'dtype':>8} {'time':>10} {'GB/s':>8} {'GFLOP/s':>8} {'share':>6} of",
    ]
    for row in rows:
        found.append(
            f"{row.name:34} {row.shape:>24} {row.dtype:>8} {_time(row.seconds):>10} {row.bytes_per_second / 1e9:8.1f} "
            f"{row.flops_per_second / 1e9:8.1f} {row.share:6.0%} {row.bound}"
        )
    return [
        *found,
        "share: of what this machine's fastest product, or its bandwidth at that size, would allow",
    ]


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.3f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.2f} us"
