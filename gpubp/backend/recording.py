"""A recorded step on the CPU: its launches as a table that one compiled loop walks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from gpubp.kernels.replay import STOPPED, replay

from . import threads
from .base import LaunchCost, State
from .launch import Launch


@contextmanager
def launching(parallel: bool) -> Iterator[bool]:
    """While launches run: with `parallel` kernels among them, threads set and guarded; yields whether they may run."""
    if not parallel:
        yield False
        return
    threads.apply_numba_threads()
    with threads.parallel_guard():
        yield threads.parallel_allowed()


class CpuRecording:
    """Launches in order over fixed buffers.

    `replay` walks the table in compiled code; where a launch has only its Python form (no BLAS pointer was found),
    or `plain` is set, the same launches are made one by one from Python.
    """

    def __init__(self, state: State, *, plain: bool = False) -> None:
        self.launches: list[Launch] = []
        self.plain = plain
        self._counters: npt.NDArray[np.int64] = state.counters
        self._table: npt.NDArray[np.int64] | None = None
        self._table_parallel = False

    def append(self, launch: Launch) -> None:
        """Adds a launch that was just made."""
        self.launches.append(launch)
        self.plain = self.plain or launch.plain is not None
        self._table = None

    @property
    def parallel(self) -> bool:
        """Whether some launch has a parallel variant."""
        return any(launch.parallel is not None for launch in self.launches)

    def table(self, parallel_allowed: bool) -> npt.NDArray[np.int64]:
        """The rows with their kernels' addresses; made again when parallel kernels become forbidden (after a fork)."""
        if self._table is None or self._table_parallel != parallel_allowed:
            self._table = np.array([launch.row for launch in self.launches], np.int64)
            self._table[:, 0] = [launch.kernel(parallel_allowed).address for launch in self.launches]
            self._table_parallel = parallel_allowed
        return self._table

    def replay(self, times: int = 1) -> int:
        """The launches again, `times` times; stops after a pass that set counters[STOPPED]. Passes begun."""
        with launching(self.parallel) as parallel_allowed:
            if self.plain:
                return self._replay_plain(times, parallel_allowed)
            return int(replay(self.table(parallel_allowed), self._counters, times))

    def _replay_plain(self, times: int, parallel_allowed: bool) -> int:
        for done in range(times):
            for launch in self.launches:
                launch.run(parallel_allowed)
            if self._counters[STOPPED]:
                return done + 1
        return times

    def costs(self, repeats: int = 0) -> list[LaunchCost]:
        """Every launch with its cost; with `repeats`, its median time. Timing runs the launches for real."""
        times: list[list[float]] = [[] for _ in self.launches]
        with launching(self.parallel) as parallel_allowed:
            for _ in range(repeats):
                for i, launch in enumerate(self.launches):
                    start = time.perf_counter()
                    launch.run(parallel_allowed)
                    times[i].append(time.perf_counter() - start)
        return [
            LaunchCost(
                launch.scope,
                launch.name,
                launch.read,
                launch.written,
                launch.flops,
                statistics.median(seconds) if seconds else 0.0,
            )
            for launch, seconds in zip(self.launches, times, strict=True)
        ]


def run_once(launch: Launch) -> None:
    """Makes one launch at once, outside any recording."""
    with launching(launch.parallel is not None) as parallel_allowed:
        launch.run(parallel_allowed)
