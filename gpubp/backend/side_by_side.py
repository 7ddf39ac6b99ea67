"""Recordings of several networks side by side on a CPU: each walked by one thread, which waits for no other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpubp.kernels import side_by_side as layout
from gpubp.kernels.compile import cpu_kernel

from .launch import Launch, make_row
from .recording import CpuRecording
from .team import team
from .threads import team_size


class CpuSideBySide:
    """Recordings that change nothing that another touches, replayed by a team whose members take one after the other.

    A step that is too short to be shared well is shared not at all, and no member waits inside it: of several steps at
    once that is the quicker way. Recordings that have only their Python form are replayed in
    turn.
    """

    def __init__(self, recordings: Sequence[CpuRecording]) -> None:
        self._recordings = tuple(recordings)
        # Of one alone, all threads share the launches.
        self._in_turn = len(recordings) == 1 or any(recording.plain for recording in recordings)
        if self._in_turn:
            return
        self._jobs = np.zeros((len(recordings), layout.JOB_CELLS), np.int64)
        for job, recording in zip(self._jobs, recordings, strict=True):
            job[: layout.JOB_TIMES] = recording.table()
        kernel = cpu_kernel(layout.side_by_side, np.int64)
        row = make_row((self._jobs,), (team(1).address,), kernel.address)
        self._launch = Launch(f"{len(recordings)} side by side", "", row, kernel, (self._jobs,), 0, 0, 0)

    def replay(self, times: Sequence[int]) -> None:
        """Each recording so many times; one stops after a pass that set its counters[STOPPED]."""
        if self._in_turn:
            for recording, count in zip(self._recordings, times, strict=True):
                recording.replay(count)
            return
        self._jobs[:, layout.JOB_TIMES] = times
        self._jobs[:, layout.TAKEN] = 0
        self._launch.run(team_size())
