"""A CUDA device in NumPy for tests: memory, streams that run late, events, graphs, and a watch over their order.

Work that is given to a stream waits in its queue until somebody synchronizes, so that a missing wait reads old values.
Every access names the memory that it touches: two accesses that no event and no wait orders raise at once. Freed
memory is overwritten with 0xFF, NaN to floats. A graph's launches run in an order of their own choice, which respects
only what was captured.
"""

from __future__ import annotations

import bisect
import itertools
import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

counts: Counter[str] = Counter()  # allocations, launches, graphs, graph launches, reads, writes, waits
THREAD_LOCAL, RELAXED = 1, 2


class CudaError(RuntimeError):
    """What the driver would refuse, or, worse, would not."""


# ---- memory ----------------------------------------------------------------------------------------------


class Buffer:
    """One allocation; `last_write` and `reads` say which work touched it: (stream, number)."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        block = np.full(nbytes + 512, 0xFF, np.uint8)
        start = -block.ctypes.data % 512
        self.bytes = block[start : start + nbytes]
        self.address = self.bytes.ctypes.data
        self.alive = True
        self.last_write: tuple[Stream, int] | None = None
        self.reads: dict[Stream, int] = {}


class _Registry:
    """Buffers by address. Dead ones keep their memory, so that no address is used twice."""

    def __init__(self) -> None:
        self.addresses: list[int] = []
        self.buffers: dict[int, Buffer] = {}

    def add(self, buffer: Buffer) -> None:
        bisect.insort(self.addresses, buffer.address)
        self.buffers[buffer.address] = buffer

    def find(self, address: int) -> Buffer:
        """The buffer that an address lies in."""
        k = bisect.bisect_right(self.addresses, address) - 1
        buffer = self.buffers[self.addresses[k]] if k >= 0 else None
        if buffer is None or not buffer.address <= address < buffer.address + buffer.nbytes:
            raise CudaError(f"an illegal memory access was encountered: {address:#x} was never allocated")
        return buffer


registry = _Registry()


def view(address: int, shape: Iterable[int], dtype: Any, strides: Any = None) -> Any:
    """The memory at an address as a NumPy array, for work that runs now."""
    shape = tuple(shape)
    if 0 in shape:
        return np.empty(shape, dtype)
    buffer = registry.find(address)
    return np.ndarray(shape, dtype, buffer.bytes.data, address - buffer.address, strides)


# ---- streams ---------------------------------------------------------------------------------------------


class Work:
    """A function and the addresses that it reads and writes."""

    def __init__(self, run: Callable[[], None], reads: Iterable[int], writes: Iterable[int]) -> None:
        self.run = run
        self.reads = {registry.find(a) for a in reads if a}
        self.writes = {registry.find(a) for a in writes if a}

    def check_alive(self) -> None:
        if not all(buffer.alive for buffer in self.reads | self.writes):
            raise CudaError(
                "an illegal memory access was encountered: a launch touches memory that was freed"
            )


class Node:
    """One launch of a graph, and those that it waits for."""

    def __init__(self, work: Work, after: set[Node]) -> None:
        self.work, self.after = work, after


class Capture:
    """A graph in the making; `tips` are the last nodes of each stream that takes part."""

    def __init__(self, mode: int) -> None:
        self.mode, self.thread = mode, threading.get_ident()
        self.nodes: list[Node] = []
        self.tips: dict[Stream, set[Node]] = {}


_host: dict[Any, int] = {}  # work of each stream that the host knows to be done
_numbers = itertools.count(1)
_captures: list[Capture] = []
_ticks = itertools.count()  # one for each piece of work that the device does


class Stream:
    """Work in order, done when somebody waits."""

    null: Stream

    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False) -> None:
        self.ptr = 0 if null else next(_numbers) * 16
        self.queue: deque[Callable[[], None]] = deque()
        self.clock: dict[Stream, int] = {}
        self.number = 0
        self.capture: Capture | None = None
        streams[self.ptr] = self

    # giving work

    def push(self, run: Callable[[], None], reads: Iterable[int] = (), writes: Iterable[int] = ()) -> None:
        """Gives work to the stream, or to the graph that it captures."""
        work = Work(run, reads, writes)
        counts["launches"] += 1
        if self.capture is not None:
            node = Node(work, self.capture.tips[self])
            self.capture.nodes.append(node)
            self.capture.tips[self] = {node}
        else:
            self.watch([work])
            self.queue.append(work.run)

    def watch(self, works: list[Work]) -> None:
        """Raises where this work is not ordered after what touched its memory before."""
        self.number += 1
        self._learn(_host)
        for work in works:
            work.check_alive()
            for buffer in work.reads | work.writes:
                before = [buffer.last_write] if buffer.last_write else []
                if buffer in work.writes:
                    before += list(buffer.reads.items())
                for stream, number in before:
                    if stream is not self and self.clock.get(stream, 0) < number:
                        raise CudaError(f"race: stream {self.ptr} touches what stream {stream.ptr} works on")
        for work in works:
            for buffer in work.reads:
                buffer.reads[self] = self.number
            for buffer in work.writes:
                buffer.last_write, buffer.reads = (self, self.number), {}
        self.clock[self] = self.number

    def _learn(self, done: dict[Stream, int]) -> None:
        for stream, number in done.items():
            self.clock[stream] = max(self.clock.get(stream, 0), number)

    # doing it

    def drain(self, until: Callable[[], bool] = lambda: False) -> None:
        with np.errstate(all="ignore"):
            while self.queue and not until():
                self.queue.popleft()()
                next(_ticks)

    def synchronize(self) -> None:
        if self.capture is not None:
            raise CudaError("operation not permitted when stream is capturing")
        counts["waits"] += 1
        self.drain()
        _known(self.clock)

    @property
    def done(self) -> bool:
        return not self.queue

    # order

    def record(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        if event.node is not None:  # recorded inside a capture: this stream joins it
            capture, nodes = event.node
            if capture not in _captures:
                raise CudaError("dependency created on a capture that has ended")
            if self.capture is None:
                self.capture, capture.tips[self] = capture, set()
            capture.tips[self] = capture.tips[self] | nodes
            return
        if self.capture is not None:
            raise CudaError("dependency created on uncaptured work in another stream")
        self._learn(event.clock)
        self.queue.append(event.mark.finish)

    # capture

    def begin_capture(self, mode: int | None = None) -> None:
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if self.capture is not None:
            raise CudaError("the stream captures already")
        self.capture = Capture(RELAXED if mode is None else mode)
        self.capture.tips[self] = set()
        _captures.append(self.capture)

    def end_capture(self) -> Graph:
        capture = self.capture
        if capture is None:
            raise CudaError("the stream does not capture")
        _captures.remove(capture)
        for stream in capture.tips:
            stream.capture = None
        last = set(capture.nodes) - {before for node in capture.nodes for before in node.after}
        if last - capture.tips[self]:
            raise CudaError("unjoined work: a branch was not joined to the stream that captures")
        counts["graphs"] += 1
        return Graph(capture.nodes)

    def is_capturing(self) -> bool:
        return self.capture is not None

    def __enter__(self) -> Stream:
        current().append(self)
        return self

    def __exit__(self, *error: Any) -> None:
        current().pop()

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.ptr


class _Mark:
    """One recording of an event: a place in a stream. What waits for it is not moved by a later recording."""

    def __init__(self, stream: Stream | None = None) -> None:
        self.stream = stream
        self.time: int | None = None

    def reached(self) -> None:
        self.time = next(_ticks)

    def finish(self) -> None:
        """Runs the stream up to the mark."""
        if self.stream is not None and self.time is None:
            self.stream.drain(lambda: self.time is not None)


class Event:
    """A mark in a stream, which may be recorded again."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self.disable_timing = disable_timing
        self.clock: dict[Stream, int] = {}
        self.node: tuple[Capture, set[Node]] | None = None
        self.mark = _Mark()

    def record(self, stream: Stream | None = None) -> None:
        stream = stream or current()[-1]
        if stream.capture is not None:
            self.node = stream.capture, set(stream.capture.tips[stream])
            return
        stream._learn(_host)
        self.mark, self.clock, self.node = _Mark(stream), dict(stream.clock), None
        stream.queue.append(self.mark.reached)

    def synchronize(self) -> None:
        if self.node is not None:
            raise CudaError("operation not permitted on an event last recorded in a capturing stream")
        counts["waits"] += 1
        self.mark.finish()
        _known(self.clock)

    @property
    def time(self) -> int | None:
        return self.mark.time

    @property
    def done(self) -> bool:
        return self.time is not None


def get_elapsed_time(start: Event, end: Event) -> float:
    assert not any(event.disable_timing for event in (start, end)), "events without timing were timed"
    assert start.time is not None
    assert end.time is not None
    return (end.time - start.time) * 1e-3


class Graph:
    """Captured launches. Each launch of it takes another order that the captured dependencies allow."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes

    def launch(self, stream: Stream | None = None) -> None:
        stream = stream or current()[-1]
        if stream.capture is not None:
            raise CudaError("a graph was launched into a stream that captures")
        counts["graph launches"] += 1
        stream.watch([node.work for node in self.nodes])
        stream.queue.append(self._run)

    def upload(self, stream: Stream | None = None) -> None:
        counts["uploads"] += 1

    def _run(self) -> None:
        waiting, done = list(self.nodes), set[Node]()
        while waiting:
            node = _chance.choice([node for node in waiting if node.after <= done])
            node.work.run()
            next(_ticks)
            waiting.remove(node)
            done.add(node)


_chance = random.Random(0)
streams: dict[int, Stream] = {}
Stream.null = Stream(null=True)
_threads = threading.local()


def current() -> list[Stream]:
    """The stack of this thread's current streams."""
    if not hasattr(_threads, "streams"):
        _threads.streams = [Stream.null]
    stack: list[Stream] = _threads.streams
    return stack


def _known(done: dict[Stream, int]) -> None:
    for stream, number in done.items():
        _host[stream] = max(_host.get(stream, 0), number)


def check_allocation() -> None:
    """Raises where this thread captures in a mode that forbids allocations."""
    if any(c.mode != RELAXED and c.thread == threading.get_ident() for c in _captures):
        raise CudaError(
            "cudaErrorStreamCaptureUnsupported: an allocation while this thread captures a stream"
        )
