"""Whether two cores are as near to each other as they usually are: how long one waits for what the other wrote.

A host moves the cores of a virtual machine: two that share a cache, two that share none, two threads of one core.
Steps whose threads work on the same memory take up to 1.7 times as long then, while every core by itself is as quick
as before and the host's other guests use nothing.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections import deque

import numpy as np
from numba import njit

from gpubp.kernels.atomics import load, store

TURNS = 1000  # that a probe takes: about 0.1 ms
LOOKS = 100  # probes from which the usual is known, 10 ms apart; of later ones the last so many count
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
    """The two CPUs that this process may use, and what is usual between them."""

    def __init__(self) -> None:
        self._cpus = sorted(os.sched_getaffinity(0))
        self.seconds()  # compiles
        self._seen = deque[float](maxlen=LOOKS)
        for _ in range(LOOKS):
            self._seen.append(self.seconds())
            time.sleep(0.01)

    def moved(self) -> bool:
        """Whether they are nearer to each other, or farther, than usual."""
        now, usual = self.seconds(), statistics.median(self._seen)
        self._seen.append(now)
        return not NEAR * usual <= now <= FAR * usual

    def settled(self, patience: float) -> bool:
        """Whether they are where they usually are; waits for it so many seconds."""
        end = time.monotonic() + patience
        while self.moved():
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def seconds(self) -> float:
        """That it takes until one sees what the other wrote, as the mean of many times."""
        cells = np.zeros(2 * _APART, np.int64)
        address, all_of_them = cells.ctypes.data, os.sched_getaffinity(0)

        def answer() -> None:
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
