"""The threads of the CPU backend: one team for the process, whose members walk recorded launches side by side.

They are Python threads that never return to Python: inside one compiled call without the interpreter's lock they wait
for work, spinning for about 0.1 ms and then asleep. So no other threading runtime is involved, none that would spin
beside BLAS, forbid two callers at once, or die in a forked child.

While launches run, BLAS works on one thread for each member that calls it. A BLAS whose number of threads cannot be
told keeps its own, and then everything else runs on one thread.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import threading
import time
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.errors import DeviceMemoryError
from gpubp.kernels import replay
from gpubp.kernels import team as layout
from gpubp.locks import lock

from .blas import GemmPointers, find_gemm, take_buffers


def can_share() -> bool:
    """Whether launches may be shared among threads: BLAS lets its own threads be told."""
    return _control() is not None


def blas_threads() -> int | None:
    """Threads that BLAS uses by itself; None where it does not tell."""
    gemm = find_gemm()
    if gemm is None or gemm.get_threads is None:
        return None
    return int(_count()(_blas_address())) if can_share() else gemm.get_threads()


class Team:
    """`size` threads: whoever calls `lead`, and size - 1 members that wait for it.

    RuntimeError where the system starts no more threads.
    """

    def __init__(self, size: int) -> None:
        take_buffers(size)
        self._cells = _shared(layout.cells(size))
        self.address = int(self._cells.ctypes.data)
        self._cells[layout.SIZE] = size
        self._cells[layout.SLEEP] = _sleep_address()
        self._cells[layout.BLAS] = _blas_address()
        for name, cell in (("acquire", layout.WAIT), ("release", layout.RELEASE)):
            self._cells[cell] = _address(getattr(ctypes.pythonapi, f"PyThread_{name}_lock"))
        serve = replay.compiled("serve")
        for member in range(1, size):
            self._cells[layout.MEMBERS + layout.LINE * member + layout.LOCK] = _closed_lock()
            arguments = (member, self.address)
            try:
                threading.Thread(target=serve, args=arguments, name=f"gpubp-{member}", daemon=True).start()
            except RuntimeError:
                self.dismiss(0)
                raise

    def dismiss(self, seconds: float) -> None:
        """Ends the members, who first finish their work; what takes longer than that many seconds goes on."""
        replay.compiled("dismiss")(self.address, int(seconds / layout.NAP_SECONDS))


_lock = lock()
_teams: dict[int, Team] = {}  # one of the size in use, and the team of one


def team(size: int) -> Team:
    """The team of that size; a team of another size, but for one, is dismissed."""
    found = _teams.get(size)
    if found is not None:
        return found
    with _lock:
        if size > 1:
            for other in [n for n in _teams if n not in (1, size)]:
                _teams.pop(other).dismiss(10.0)
        if size not in _teams:
            _teams[size] = _new_team(size)
        return _teams[size]


def _new_team(size: int) -> Team:
    """A team of that size; of one, which gives the same bits, where the system starts no more threads."""
    try:
        return Team(size)
    except DeviceMemoryError:
        raise
    except RuntimeError as error:
        warnings.warn(
            f"expected {size} threads; got one ({error}): the results are the same, the work takes longer; raise the "
            "limit of threads of this user or container (ulimit -u)",
            RuntimeWarning,
            stacklevel=2,
        )
        return Team(1)


def walk(table: int, rows: int, counters: int, times: int, size: int) -> int:
    """Walks the table of launches at that address with a team of `size`; the passes begun."""
    if _leaving is not None and threading.get_ident() != _leaving:
        _never.acquire()  # the process ends, and with it this thread
    return int(_lead()(table, rows, counters, times, team(size).address, team(1).address))


@functools.cache
def _lead() -> Any:
    return replay.compiled("lead")


@functools.cache
def _count() -> Any:
    return replay.compiled("blas_threads")


# ---- what the compiled code is given ---------------------------------------------------------------------


def _shared(length: int) -> npt.NDArray[np.int64]:
    """Zeros that live as long as the process: a member may look at them until its very end."""
    cells = np.zeros(length + layout.LINE, np.int64)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(cells))
    start = -cells.ctypes.data // 8 % layout.LINE
    return cells[start : start + length]


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def _closed_lock() -> int:
    """A lock of the interpreter's threading library, taken, so that the next to take it waits."""
    allocate, acquire = ctypes.pythonapi.PyThread_allocate_lock, ctypes.pythonapi.PyThread_acquire_lock
    allocate.restype, acquire.argtypes = ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_int)
    lock = allocate()
    if not lock:
        raise MemoryError
    acquire(lock, 1)
    return int(lock)


@functools.cache
def _sleep_address() -> int:
    """The C function that sleeps for so many microseconds, on Windows milliseconds."""
    if os.name == "nt":
        return _address(ctypes.windll.kernel32.Sleep)  # type: ignore[attr-defined, unused-ignore]
    return _address(ctypes.CDLL(None).usleep)


@functools.cache
def _control() -> GemmPointers | None:
    gemm = find_gemm()
    return gemm if gemm is not None and gemm.set_threads and gemm.get_threads else None


@functools.cache
def _blas() -> npt.NDArray[np.int64]:
    """The cells through which walks keep BLAS to one thread for each caller."""
    cells, gemm = _shared(replay.BLAS_CELLS), _control()
    if gemm is not None:
        cells[replay.GET], cells[replay.SET] = _address(gemm.get_threads), _address(gemm.set_threads)
    return cells


@functools.cache
def _blas_address() -> int:
    return int(_blas().ctypes.data)


# ---- the end of the process, and its children --------------------------------------------------------------


_PATIENCE = 10.0  # seconds; what `fit` walks at once takes about 0.05
_leaving: int | None = None  # the thread that ends the process; no other one begins a walk then
_never = threading.Lock()
_never.acquire()


def _dismiss_all() -> None:
    """At the end of the process: a walk of a daemon thread would go on while libraries under it are taken down."""
    global _leaving
    _leaving = threading.get_ident()
    end = time.monotonic() + _PATIENCE
    while _blas.cache_info().currsize and time.monotonic() < end:
        time.sleep(0.001)  # a thread between its look at `_leaving` and its walk gets as far as that
        if _blas()[replay.USERS] == 0:
            break
    for size, found in _teams.items():
        if size > 1:
            found.dismiss(0.1)


def _hold(hold: int) -> None:
    """No walk tells BLAS its threads while the process forks: the child would inherit a lock of BLAS as taken."""
    if _blas.cache_info().currsize:
        replay.compiled("hold")(_blas_address(), hold)


def _after_fork() -> None:
    """A forked child has no members, and nobody in it walks: it makes a team of its own when it needs one."""
    global _leaving
    _leaving = None
    _teams.clear()
    if _blas.cache_info().currsize:
        cells, gemm = _blas(), _control()
        hushed = cells[replay.USERS] > 0
        cells[replay.USERS] = cells[replay.GUARD] = 0
        if hushed and gemm is not None and gemm.set_threads is not None:
            gemm.set_threads(int(cells[replay.THREADS]))


atexit.register(_dismiss_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=lambda: _hold(1), after_in_parent=lambda: _hold(0), after_in_child=_after_fork)
