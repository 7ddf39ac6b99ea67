"""How much of the machine others used while something was timed: other processes, and whoever shares its cores."""

from __future__ import annotations

import os
from pathlib import Path

_CPU, _IDLE = (
    Path("/proc/stat"),
    (3, 4),
)  # columns of its first line that are no work: idle, waiting for a disk
_GUEST = 8  # from here on its columns are counted in others before them


class Watch:
    """Watches the machine beside one process from now on; knows nothing where there is no /proc."""

    def __init__(self, pid: int) -> None:
        self._pid, self._begin = pid, _times(pid)

    def others(self) -> float | None:
        """Share of all CPU time since then that neither this process nor the watched one used, stolen time included."""
        end = _times(self._pid)
        if self._begin is None or end is None:
            return None
        whole, work, own = (after - before for after, before in zip(end, self._begin, strict=True))
        return max(0.0, (work - own) / whole) if whole > 0 else 0.0


def _times(pid: int) -> tuple[float, float, float] | None:
    """Seconds of all CPUs, those at work, those of the process and of this one."""
    try:
        columns = [int(text) for text in _CPU.read_text().split("\n", 1)[0].split()[1 : _GUEST + 1]]
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    tick = os.sysconf("SC_CLK_TCK")
    idle, mine = sum(columns[k] for k in _IDLE), os.times()
    own = (int(fields[11]) + int(fields[12])) / tick + mine.user + mine.system
    return sum(columns) / tick, (sum(columns) - idle) / tick, own
