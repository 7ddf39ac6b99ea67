"""Threads of the CPU backend: how many, at peace with BLAS, and safe under Python threads and fork.

Three properties of Numba's threading layers decide what happens here.

- OpenMP's workers spin after each parallel kernel, on cores that BLAS wants next. They do not where
  GOMP_SPINCOUNT=0 or OMP_WAIT_POLICY=PASSIVE stood in the environment when the runtime was loaded, so the
  variables are set for that moment and taken back (`quiet_openmp`).
- PyTorch's wheel loads a libgomp of its own for the whole process, and Numba's layer would bind to that one,
  which runs already. RTLD_DEEPBIND binds it to the libgomp that Numba names. scikit-learn's copy has its own
  name and does not interfere. Where Numba's own runtime runs already, because other code started the layer
  or loaded the system's libgomp, it can no longer be told: kernels then stay serial, with the same results.
- The omp layer kills a forked child that enters it; the workqueue layer aborts when two threads enter it.

Measured on 2 cores (NumPy 2.4, Numba 0.68, PyTorch 2.13): a 1024x1024x256 float32 product and a kernel over
262144 elements, in turn, take 8.0 ms with spinning workers, whoever loaded OpenMP first, and 2.4 to 2.6 ms
with the cure, with the workqueue layer or with a serial kernel.
"""

from __future__ import annotations

import contextlib
import importlib
import operator
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import numba
from numba import config, threading_layer

from gpubp.backend.blas import find_gemm
from gpubp.errors import InputError

# What keeps idle workers from spinning: GNU's runtime, any runtime, Intel's and LLVM's.
QUIET = {"GOMP_SPINCOUNT": "0", "OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
RUNTIMES = ("libgomp", "libiomp", "libomp")
TOO_LATE = "no: other code started OpenMP first, without OMP_WAIT_POLICY=PASSIVE in the environment"
ONE_THREAD = (
    "gpubp runs its CPU kernels on one thread (results are the same): other code started OpenMP first, "
    "and its idle threads would slow the matrix products down; to use all threads, start Python with "
    "OMP_WAIT_POLICY=PASSIVE in the environment"
)


class _Applied(threading.local):
    threads: int | None = None


class _Parallel:
    """Whether parallel kernels may run in this process, and why not."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.guard: AbstractContextManager[Any] = contextlib.nullcontext()
        self.decided = False
        self.allowed = False
        self.reason = "not started"
        self.forked = False


_applied = _Applied()
_parallel = _Parallel()
_threads: int | None = None  # None until set_threads: then BLAS and Numba keep their own defaults


def set_threads(n: int) -> None:
    """Let matrix products and parallel kernels use n threads, from 1 to NUMBA_NUM_THREADS (the CPUs at most).

    Holds for the whole process: NumPy's own products use the same BLAS threads. Raises InputError.
    """
    global _threads
    most = _most()
    try:
        count = 0 if isinstance(n, bool) else operator.index(n)
    except TypeError:
        count = 0
    if not 1 <= count <= most:
        raise InputError(
            f"set_threads: expected an integer from 1 to {most}; got {n!r}; "
            "for more threads start Python with NUMBA_NUM_THREADS set to their number"
        )
    _set_blas_threads(count)
    _threads = count


def get_threads() -> int:
    """Threads of parallel kernels: what set_threads was given, else the CPUs that the process may run on."""
    return _most() if _threads is None else _threads


def _most() -> int:
    """Threads that Numba starts: NUMBA_NUM_THREADS, else the CPUs that the process may use."""
    return int(config.NUMBA_NUM_THREADS)


def apply_numba_threads() -> None:
    """Give the calling thread's Numba mask the count of set_threads; Numba keeps one mask for each thread."""
    if _applied.threads != _threads and _parallel.allowed and _threads is not None:
        numba.set_num_threads(_threads)
        _applied.threads = _threads


def _set_blas_threads(count: int) -> None:
    gemm = find_gemm()
    if gemm is not None and gemm.set_threads is not None:
        gemm.set_threads(count)
        return
    with contextlib.suppress(ImportError):  # without it the BLAS keeps its own count, and describe() says so
        importlib.import_module("threadpoolctl").threadpool_limits(count, "blas")


def layer() -> str | None:
    """Name of Numba's threading layer, "omp", "tbb" or "workqueue"; None as long as nobody has started it."""
    try:
        return str(threading_layer())
    except ValueError:
        return None


def start_parallel() -> bool:
    """Start Numba's threading layer once, quietly, and answer whether parallel kernels may be used.

    Call it before the first parallel kernel is compiled or loaded. False means: use the serial twins, which
    give the same bits; `describe()["parallel"]` says why. Any thread may call it, any number of times.
    """
    with _parallel.lock:
        if _parallel.decided:
            return _parallel.allowed
        _parallel.allowed, _parallel.reason = _launch()
        if layer() == "workqueue":
            _parallel.guard = threading.RLock()
        _parallel.decided = True
    if _parallel.reason == TOO_LATE:  # once, and with the state already settled, should warnings be errors
        warnings.warn(ONE_THREAD, RuntimeWarning, stacklevel=2)
    return _parallel.allowed


def parallel_allowed() -> bool:
    """Whether parallel kernels may run now: start_parallel() said so, and this is no child forked since."""
    return _parallel.allowed


def parallel_guard() -> AbstractContextManager[Any]:
    """Hold it (`with parallel_guard():`) while parallel kernels run: a lock under workqueue, else nothing."""
    return _parallel.guard


def _launch() -> tuple[bool, str]:
    """Start the layer; whether parallel kernels may be used, and the reason."""
    mine, chosen, before = layer() is None, any(name in os.environ for name in QUIET), _loaded_runtimes()
    try:
        with quiet_openmp():
            numba.get_num_threads()  # starts the layer if nobody has
    except (ValueError, ImportError, OSError) as error:
        return False, f"no: Numba's threading layer did not start ({error})"
    if layer() != "omp":
        return True, "yes"
    if mine and (not before or _loaded_runtimes() - before):
        return True, "yes"
    if _parallel.forked:
        return False, "no: this process was forked from one that had loaded OpenMP"
    if chosen:
        return True, "yes: OpenMP was running already, with waiting as set in the environment"
    return False, TOO_LATE


def _loaded_runtimes() -> set[str]:
    """Paths of the OpenMP libraries in this process; empty where the system does not tell."""
    with contextlib.suppress(OSError), open("/proc/self/maps", encoding="utf-8", errors="replace") as lines:
        paths = (line.split(maxsplit=5)[-1].strip() for line in lines)
        return {path for path in paths if os.path.basename(path).startswith(RUNTIMES)}
    return set()


@contextlib.contextmanager
def quiet_openmp() -> Iterator[None]:
    """While inside, an OpenMP runtime that loads gets workers that do not spin; the environment is put back.

    Values that the user has set stay and are respected.
    """
    ours = {} if any(name in os.environ for name in QUIET) else QUIET
    deep = getattr(os, "RTLD_DEEPBIND", 0) if _loaded_runtimes() else 0
    flags = sys.getdlopenflags() if deep else 0
    try:
        os.environ.update(ours)
        if deep:
            sys.setdlopenflags(flags | deep)
        yield
    finally:
        if deep:
            sys.setdlopenflags(flags)
        for name in ours:
            os.environ.pop(name, None)


def _after_fork() -> None:
    """In a forked child the layer's threads are gone and entering it kills: serial kernels from here on."""
    global _parallel
    _parallel = _Parallel()  # a new lock too: the old one may be held by a thread that is no more
    _parallel.forked = True
    if layer() is not None:
        _parallel.decided = True
        _parallel.reason = "no: this process was forked after Numba's threads had started"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _waiting() -> str:
    """How the layer's idle workers wait, as far as is known here."""
    chosen = [f"{name}={os.environ[name]}" for name in QUIET if name in os.environ]
    if chosen:
        return f"as set in the environment: {', '.join(chosen)}"
    return "asleep" if _parallel.allowed or layer() not in ("omp", None) else "not decided by gpubp"


def describe() -> dict[str, object]:
    """Diagnostics: the layer, threads, whether parallel kernels run, how idle workers wait, and the BLAS."""
    gemm = find_gemm()
    blas_threads = gemm.get_threads() if gemm is not None and gemm.get_threads is not None else None
    return {
        "layer": layer(),
        "threads": get_threads(),
        "parallel": _parallel.reason,
        "waiting": _waiting(),
        "blas": gemm.library if gemm is not None else "not found; products run through np.matmul",
        "blas_integer_bits": gemm.integer_bits if gemm is not None else None,
        "blas_threads": blas_threads if blas_threads is not None else "not under control",
    }
