"""Whether two cores are as near to each other as they usually are: how long one waits for what the other wrote.

A host moves the cores of a virtual machine: two that share a cache, two that share none, two threads of one core.
Steps whose threads work on the same memory take up to 1.7 times as long then, while every core by itself is as quick
as before and the host's other guests use nothing.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import threading
import time

import numpy as np
from numba import njit

from gpubp.kernels.atomics import load, store

TURNS, PROBES = 300, 5  # of the probes of a look the least counts: a mean would count an interruption
LOOKS = 100  # from which the usual is known, 10 ms apart
NEAR, FAR = 0.6, 1.7  # times the usual, between which cores are where they usually are
_APART = 128  # cells between the two flags, so that they share no line


@njit(nogil=True)
def _play(address: int, me: int, turns: int) -> None:  # pragma: no cover, compiled
    mine, theirs = address + 8 * _APART * me, address + 8 * _APART * (1 - me)
    for turn in range(1, turns + 1):
        if me == 0:
            store(mine, turn)
        while load(theirs) < turn:
            pass
        if me == 1:
            store(mine, turn)


class Cores:
    """The two CPUs that this process may use, and what is usual between them, found at the beginning."""

    def __init__(self) -> None:
        self._cpus = sorted(os.sched_getaffinity(0))
        self.seconds()  # compiles
        seen = []
        for _ in range(LOOKS):
            seen.append(self.seconds())
            time.sleep(0.01)
        self._usual = statistics.median(seen)

    def moved(self) -> bool:
        """Whether they are nearer to each other, or farther, than usual."""
        return not NEAR * self._usual <= self.seconds() <= FAR * self._usual

    def settled(self, patience: float) -> bool:
        """Whether they are where they usually are; waits for it so many seconds."""
        end = time.monotonic() + patience
        while self.moved():
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def seconds(self) -> float:
        """That it takes until one sees what the other wrote: the least of some probes, each the mean of many times."""
        return min(self._probe() for _ in range(PROBES))

    def _probe(self) -> float:
        cells = np.zeros(2 * _APART, np.int64)
        address, all_of_them = cells.ctypes.data, os.sched_getaffinity(0)

        def answer() -> None:
            with contextlib.suppress(OSError):  # whoever plays with it waits for ever if this thread ends
                os.sched_setaffinity(0, {self._cpus[1]})
            _play(address, 1, TURNS)

        other = threading.Thread(target=answer)
        os.sched_setaffinity(0, {self._cpus[0]})  # of this thread alone
        try:
            other.start()
            _play(address, 0, 1)  # when the other one is there
            start = time.perf_counter()
            _play(address, 0, TURNS)
            took = time.perf_counter() - start
            other.join()
        finally:
            os.sched_setaffinity(0, all_of_them)
        return took / (2 * (TURNS - 1))  # the first turn has been played


def two_cores() -> Cores | None:
    """Them, where this process may use two and the system says which."""
    found = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    return Cores() if len(found) == 2 else None
