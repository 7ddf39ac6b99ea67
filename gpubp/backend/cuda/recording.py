"""A recorded step on a GPU: its launches, which the first replay turns into one CUDA graph."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpubp.backend.base import Array, LaunchCost

if TYPE_CHECKING:
    from .lane import Lane

COPIES = 20  # of a launch in the graph that times it, so that what a graph costs to launch does not count


@dataclass(frozen=True)
class CudaLaunch:
    """One launch, which `issue` makes without allocating or waiting, and the arrays that it keeps alive.

    `read` and `written` are what it costs, in bytes; `changed` are the arrays whose values it changes. `aside` says
    that it may run beside later launches that touch nothing of it.
    """

    scope: str
    name: str
    issue: Callable[[], None]
    operands: tuple[Array, ...]
    changed: tuple[Array, ...]
    read: int
    written: int
    flops: int
    aside: bool = False


class CudaRecording:
    """Launches in order over fixed buffers. The graph is made once, and again only if a launch is added.

    With `branch`, launches that may run aside go to a second stream: each begins when what stands before it is done,
    and whatever touches its operands waits for it, at the latest the end of the step.
    """

    def __init__(self, lane: Lane, *, branch: bool = False) -> None:
        self.launches: list[CudaLaunch] = []
        self.branch = branch
        self.built = 0  # graphs made so far
        self.lane = lane
        self._graph: Any = None

    def append(self, launch: CudaLaunch) -> None:
        """Adds a launch that was just made."""
        self.launches.append(launch)
        self._graph = None

    def replay(self, times: int = 1) -> int:
        """The launches again, `times` times, without waiting; `times`. What follows a stop does nothing."""
        with self.lane.context.use():
            if self._graph is None:
                self._graph = self._build()
            for _ in range(times):
                self._graph.launch(self.lane.context.stream)
        return times

    def _build(self) -> Any:
        events: list[Any] = []  # kept until the graph is made

        def issue_all(main: Any, *branches: Any) -> None:
            branch = branches[0] if branches else main
            for launch, stream in _branched(self.launches, main, branch, events):
                with self.lane.onto(stream):
                    launch.issue()

        graph = capture(issue_all, streams=2 if self.branch else 1)
        graph.upload(self.lane.context.stream)
        self.built += 1
        return graph

    # costs

    def costs(self, repeats: int = 0) -> list[LaunchCost]:
        """Every launch with its cost; with `repeats`, its median time on the device. The step is then made once."""
        with self.lane.context.use():
            seconds = [self._seconds(launch, repeats) if repeats else 0.0 for launch in self.launches]
        return [
            LaunchCost(launch.scope, launch.name, launch.read, launch.written, launch.flops, time)
            for launch, time in zip(self.launches, seconds, strict=True)
        ]

    def _seconds(self, launch: CudaLaunch, repeats: int) -> float:
        """The median; what the launch changed many times is put back, then the launch is made for real."""
        from cupy.cuda import Event, get_elapsed_time

        stream = self.lane.context.stream
        before = [array.copy() for array in launch.changed]

        def copies(stream: Any) -> None:
            with self.lane.onto(stream):
                for _ in range(COPIES):
                    launch.issue()

        graph = capture(copies)
        graph.launch(stream)  # the first one also uploads it
        times = []
        for _ in range(repeats):
            start, end = Event(), Event()
            start.record(stream)
            graph.launch(stream)
            end.record(stream)
            end.synchronize()
            times.append(1e-3 * get_elapsed_time(start, end) / COPIES)
        for array, values in zip(launch.changed, before, strict=True):
            array.data.copy_from_device_async(values.data, array.nbytes, stream)
        launch.issue()
        stream.synchronize()  # before the graph goes
        return statistics.median(times)


def capture(issue: Callable[..., None], streams: int = 1) -> Any:
    """The CUDA graph of what `issue(*streams)` launches; the first of the streams captures, the others may join it.

    They are streams of their own: what other threads launch meanwhile on the backend's stream stays out of the graph.
    """
    from cupy.cuda import Stream, runtime

    own = [Stream(non_blocking=True) for _ in range(streams)]
    with _no_collection():
        own[0].begin_capture(runtime.streamCaptureModeThreadLocal)
        try:
            issue(*own)
        except BaseException:
            _abandon(own[0])
            raise
        return own[0].end_capture()


def _abandon(stream: Any) -> None:
    """Ends a capture that an error invalidated, so that the stream is not left in it."""
    try:  # noqa: SIM105
        stream.end_capture()
    except Exception:  # the driver reports the invalid capture once more
        pass


@contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage collection inside: it might free memory or unload a module, which a capture does not allow."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


# a second branch


def _branched(
    launches: Iterable[CudaLaunch], main: Any, branch: Any, events: list[Any]
) -> Iterator[tuple[CudaLaunch, Any]]:
    """Every launch with its stream: those that may run aside in `branch`, which forks from `main` and joins it."""
    from cupy.cuda import Event

    pending: list[CudaLaunch] = []

    def wait(waiting: Any, for_: Any) -> None:
        if waiting is not for_:
            events.append(Event(disable_timing=True))
            events[-1].record(for_)
            waiting.wait_event(events[-1])

    for launch in launches:
        if launch.aside:
            wait(branch, for_=main)
            pending.append(launch)
        elif any(conflict(launch, other) for other in pending):
            wait(main, for_=branch)
            pending.clear()
        yield launch, branch if launch.aside else main
    if pending:
        wait(main, for_=branch)


def conflict(a: CudaLaunch, b: CudaLaunch) -> bool:
    """Whether one of the two changes memory that the other touches."""
    return _overlap(a.changed, b.operands) or _overlap(b.changed, a.operands)


def _overlap(first: Iterable[Array], second: Iterable[Array]) -> bool:
    spans = [(x.data.ptr, x.data.ptr + x.nbytes) for x in second]
    return any(low < x.data.ptr + x.nbytes and x.data.ptr < high for x in first for low, high in spans)
