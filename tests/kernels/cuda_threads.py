"""Simulated CUDA threads that take turns: each runs until it waits for the others, so the order is always the same."""

from __future__ import annotations

import threading
import types
from typing import Any, ClassVar

import numpy as np
from numba.cuda.simulator import kernelapi

WARP = 32


def waits(f: Any) -> bool:
    """Whether a function, or one that it calls, waits for other threads."""
    if not isinstance(f, types.FunctionType):
        return False
    if {"syncthreads", "shfl_sync", "shfl_xor_sync", "shfl_down_sync", "shfl_up_sync"} & set(
        f.__code__.co_names
    ):
        return True
    called = [cell.cell_contents for cell in f.__closure__ or ()]
    called += [f.__globals__.get(name) for name in f.__code__.co_names]
    return any(waits(g) for g in called if getattr(g, "__module__", "").startswith("gpubp.kernels.cuda."))


class Meeting:
    """A barrier for threads that run one at a time."""

    def __init__(self, parties: int) -> None:
        self.parties, self.waiting, self.held = parties, 0, 0

    def wait(self, worker: Worker) -> None:
        self.waiting += 1
        if self.waiting == self.parties:
            self.waiting, self.held = 0, self.held + 1
            worker.block.idle = 0
            return
        mine = self.held
        while self.held == mine:
            worker.hand_on()


class Worker(threading.Thread):
    """One simulated thread of the block at hand."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.turn = threading.Semaphore(0)
        self.start()

    def run(self) -> None:
        while True:
            self.turn.acquire()
            try:
                self.block.kernel(*self.block.arguments)
            except BaseException as error:
                self.block.errors.append(error)
            self.block.leave(self)

    def hand_on(self) -> None:
        block = self.block
        block.idle += 1
        if block.errors or block.idle > 2 * len(block.workers) + 2:
            raise RuntimeError("threads of a block wait at different barriers, or one of them failed")
        after = block.after(self)
        if after is not self:
            after.turn.release()
            self.turn.acquire()

    def syncthreads(self) -> None:
        self.block.meeting.wait(self)

    def exchange(self, value: Any, source: Any) -> Any:
        """The value of lane source(lane) of the warp; the lane's own where there is none."""
        meeting, values = self.block.warps[self.number // WARP]
        values, lane = values[meeting.held % 2], self.number % WARP
        values[lane] = value
        meeting.wait(self)
        other = source(lane)
        return values[other] if 0 <= other < meeting.parties else value


class Block:
    """One block of threads at its place in the grid."""

    pool: ClassVar[list[Worker]] = []

    def __init__(self, kernel: Any, place: Any, block: Any, arguments: Any) -> None:
        self.kernel, self.arguments, self.place = kernel, arguments, kernelapi.Dim3(*place)
        self.points = [kernelapi.Dim3(x, y, z) for z, y, x in np.ndindex(*block[::-1])]
        self.errors: list[BaseException] = []
        self.idle, self.done = 0, threading.Semaphore(0)
        size = len(self.points)
        self.meeting = Meeting(size)
        firsts = range(0, size, WARP)
        self.warps = [(Meeting(min(WARP, size - k)), ([None] * WARP, [None] * WARP)) for k in firsts]

    def run(self) -> None:
        if not waits(self.kernel):
            thread = threading.current_thread()
            thread.blockIdx = self.place
            for thread.threadIdx in self.points:
                self.kernel(*self.arguments)
            return
        while len(self.pool) < len(self.points):
            self.pool.append(Worker())
        self.workers = self.pool[: len(self.points)]
        for number, (worker, point) in enumerate(zip(self.workers, self.points, strict=True)):
            worker.block, worker.number, worker.blockIdx, worker.threadIdx = self, number, self.place, point
        self.here = dict.fromkeys(self.workers)
        self.workers[0].turn.release()
        self.done.acquire()
        if self.errors:
            raise self.errors[0]

    def after(self, worker: Worker) -> Worker:
        """Whose turn is next: the next of those that have not left."""
        for k in range(1, len(self.workers) + 1):
            other = self.workers[(worker.number + k) % len(self.workers)]
            if other in self.here:
                return other
        raise AssertionError("nobody is left")

    def leave(self, worker: Worker) -> None:
        self.idle = 0
        del self.here[worker]
        if self.here:
            self.after(worker).turn.release()
        else:
            self.done.release()
