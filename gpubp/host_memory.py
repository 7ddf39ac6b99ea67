"""Memory of the host: what this process may still take, and one clear error where that does not suffice."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from gpubp.errors import DeviceMemoryError

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

P = ParamSpec("P")
T = TypeVar("T")
_GROUPS, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def free_memory() -> int | None:
    """Bytes that this process may still take, swap and the caches of files included; None where nothing tells.

    The least of what the system has, its control groups allow (version 2) and its own limit on addresses leaves.
    """
    swap = _of_system("SwapFree:") or 0
    shared = [n + swap for n in (_of_system("MemAvailable:"), _of_groups()) if n is not None]
    own = address_room()
    return min([*shared, *([] if own is None else [own])], default=None)


def _of_system(name: str) -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def _of_groups() -> int | None:
    """What the group of the process, and each group around it, has left below its `memory.max`."""
    try:
        lines = _OWN_GROUPS.read_text().splitlines()
        group = _GROUPS / next(line[3:] for line in lines if line.startswith("0::")).lstrip("/")
    except (OSError, StopIteration):
        return None
    found = []
    for folder in (group, *group.parents):
        if _GROUPS not in (folder, *folder.parents):
            break
        try:
            most, used = ((folder / f"memory.{name}").read_text().strip() for name in ("max", "current"))
            statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            found.append(int(most) - int(used) + int(statistics.get("inactive_file", 0)))
        except (OSError, ValueError):  # no limit here: "max", or no such file
            continue
    return max(0, min(found)) if found else None


def address_room() -> int | None:
    """Bytes that the limit on addresses, that of `ulimit -v`, leaves; None where there is none."""
    if resource is None:
        return None  # type: ignore[unreachable]
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    if most == resource.RLIM_INFINITY:
        return None
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
    return max(0, most - used)


def shortage(nbytes: int | None = None, allocated: int = 0) -> DeviceMemoryError:
    """The error for an array of `nbytes` that the host has no room for, where gpubp's arrays hold `allocated`."""
    free = free_memory()
    wanted = "more memory" if nbytes is None else f"{nbytes:,} free bytes"
    if free is None:
        got = "less"
    elif nbytes is not None and free >= nbytes:
        got = f"{free:,}, in pieces"
    else:
        got = f"{free:,}" if nbytes is not None else f"{free:,} free bytes"
    return DeviceMemoryError(
        f"out of memory on cpu: expected {wanted}; got {got}; take a smaller batch or network, or fewer rows",
        needed=nbytes or 0,
        free=free or 0,
        allocated=allocated,
    )


def told(error: MemoryError) -> DeviceMemoryError:
    """An error of memory as gpubp tells it: of an array, as NumPy raises it, with its bytes."""
    if isinstance(error, DeviceMemoryError):
        return error
    shape: Any = getattr(error, "shape", None)
    dtype: Any = getattr(error, "dtype", None)
    return shortage(None if shape is None or dtype is None else math.prod(shape) * dtype.itemsize)


def lets_go(method: Callable[P, T]) -> Callable[P, T]:
    """A function whose errors of memory are gpubp's, and keep no arrays alive: those of the frames of the traceback.

    An interactive session keeps its last error, and the next, smaller try would find the memory taken.
    """

    @functools.wraps(method)
    def call(*arguments: P.args, **options: P.kwargs) -> T:
        try:
            return method(*arguments, **options)
        except MemoryError as error:
            raised = told(error)
        raised.__context__ = None  # and its frames; for the same reason it is raised here and not above
        raise raised.with_traceback(None)

    return call
