"""Recordings of several networks side by side on a GPU: one graph with a branch for each lane of products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .recording import CudaRecording, capture

BRANCHES = 8  # side by side, each with a workspace of 32 MiB for its products; what is more runs behind them


class CudaSideBySide:
    """Recordings that change nothing that another touches, each step of all of them one graph.

    Recordings of one lane share the workspace of its products and stand in one branch, one after the other. A graph is
    made for every set of recordings that still run.
    """

    def __init__(self, recordings: Sequence[CudaRecording]) -> None:
        self._recordings = tuple(recordings)
        self._lanes = list(dict.fromkeys(recording.lane for recording in recordings))
        self._graphs: dict[tuple[int, ...], Any] = {}

    def replay(self, times: Sequence[int]) -> None:
        """Each recording so many times, without waiting. What follows its stop does nothing."""
        left, context = list(times), self._lanes[0].context
        with context.use():
            while running := tuple(k for k, count in enumerate(left) if count > 0):
                if running not in self._graphs:
                    self._graphs[running] = self._build(running)
                passes = min(left[k] for k in running)
                for _ in range(passes):
                    self._graphs[running].launch(context.stream)
                for k in running:
                    left[k] -= passes

    def _build(self, running: tuple[int, ...]) -> Any:
        events: list[Any] = []  # kept until the graph is made

        def wait(waiting: Any, for_: Any) -> None:
            from cupy.cuda import Event

            events.append(Event(disable_timing=True))
            events[-1].record(for_)
            waiting.wait_event(events[-1])

        def issue_all(main: Any, *branches: Any) -> None:
            for branch in branches:
                wait(branch, for_=main)
            stream_of = dict(zip(self._lanes, (main, *branches), strict=True))
            for k in running:
                recording = self._recordings[k]
                with recording.lane.onto(stream_of[recording.lane]):
                    for launch in recording.launches:
                        launch.issue()
            for branch in branches:
                wait(main, for_=branch)

        graph = capture(issue_all, streams=len(self._lanes))
        graph.upload(self._lanes[0].context.stream)
        return graph
