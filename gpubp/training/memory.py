"""Memory of this process, as the system counts it."""

from __future__ import annotations

import os
import sys

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


def resident() -> int | None:
    """Bytes of memory that the process holds; None where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def most_resident() -> int | None:
    """The most bytes that the process ever held; None where the system does not say."""
    try:
        with open(
            "/proc/self/status", encoding="ascii"
        ) as file:  # what getrusage tells may be the parent's peak
            return next(1024 * int(line.split()[1]) for line in file if line.startswith("VmHWM"))
    except (OSError, ValueError, IndexError, StopIteration):
        pass
    if resource is None:
        return None  # type: ignore[unreachable]
    unit = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit
