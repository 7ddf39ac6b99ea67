"""A recorded step on the CPU: its launches as a table that one compiled loop walks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.kernels.replay import STOPPED
from gpubp.kernels.rows import BARRIER

from .accesses import barriers
from .launch import Launch
from .pace import Pace
from .panels import lay_in_panels
from .state import State
from .team import walk
from .terms import LaunchCost
from .threads import team_size

SHARED_FROM = 8e-6  # seconds of work of one thread from which it pays to share it


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
        self._addresses = (0, 0)
        self._pace: Pace | None = None
        self.team = team_size()  # as its products are cut, so that rows stay with their member

    def append(self, launch: Launch) -> None:
        """Adds a launch that was just made."""
        self.launches.append(launch)
        self.plain = self.plain or launch.plain is not None
        self._table = None

    def _finish(self) -> None:
        """Makes the table that compiled code walks."""
        accesses = lay_in_panels(self.launches, self.team)
        self._table = np.array([launch.row for launch in self.launches], np.int64)
        self._table[:, BARRIER] = barriers(accesses)
        self._addresses = (self._table.ctypes.data, self._counters.ctypes.data)
        work = sum(launch.work for launch in self.launches)
        self._pace = Pace(self.team, work) if self.team > 1 and work >= SHARED_FROM else None

    def table(self) -> tuple[int, int, int]:
        """What compiled code walks: the address of the table, its rows, the address of the counters."""
        if self._table is None:
            self._finish()
        return self._addresses[0], len(self.launches), self._addresses[1]

    def cells_of(self, array: npt.NDArray[Any]) -> Callable[[int], None]:
        """A function that puts another array of the same shape, by its address, in the place of `array`."""
        if self._table is None:
            self._finish()
        assert self._table is not None
        flat = self._table.reshape(-1)
        cells = np.flatnonzero(flat == array.ctypes.data)

        def put(address: int) -> None:
            flat[cells] = address

        return put

    def replay(self, times: int = 1) -> int:
        """The launches again, `times` times; stops after a pass that set counters[STOPPED]. Passes begun."""
        if self.plain:
            return self._replay_plain(times)
        if self._table is None:
            self._finish()
        if self._pace is None or team_size() != self.team:
            return self._walk(times, 1)
        done = 0
        while done < times:
            shared, passes = self._pace.choose(times - done)
            start = time.perf_counter()
            begun = self._walk(passes, self.team if shared else 1)
            self._pace.took(shared, time.perf_counter() - start, begun)
            done += begun
            if self._counters[STOPPED]:
                break
        return done

    def _walk(self, times: int, size: int) -> int:
        table, counters = self._addresses
        return walk(table, len(self.launches), counters, times, size)

    def _replay_plain(self, times: int) -> int:
        for done in range(times):
            for launch in self.launches:
                run_once(launch)
            if self._counters[STOPPED]:
                return done + 1
        return times

    def costs(self, repeats: int = 0) -> list[LaunchCost]:
        """Every launch with its cost; with `repeats`, its median time. Timing runs the launches for real."""
        if not self.plain:
            self.table()  # with which comes the pace: whether a replay may be shared
        times: list[list[float]] = [[] for _ in self.launches]
        for _ in range(repeats):
            for i, launch in enumerate(self.launches):
                start = time.perf_counter()
                launch.run(team_size() if self._pace else 1)
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
    launch.run(team_size() if launch.work >= SHARED_FROM else 1)
