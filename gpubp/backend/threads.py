"""How many threads the CPU backend uses, and what there is to say of them."""

from __future__ import annotations

import contextlib
import importlib
import operator

from numba import config

from gpubp.errors import InputError

from .blas import find_gemm
from .team import blas_threads, can_share

_threads: int | None = None  # None until set_threads: then the defaults hold


def set_threads(n: int) -> None:
    """Let matrix products and kernels use n threads, from 1 to NUMBA_NUM_THREADS (the CPUs at most).

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
    """Threads of products and kernels: what set_threads was given, else the CPUs that the process may run on.

    Fewer where BLAS was told to use fewer: by OPENBLAS_NUM_THREADS, OMP_NUM_THREADS or threadpoolctl.
    """
    if _threads is not None:
        return _threads
    return min(_most(), blas_threads() or _most())


def team_size() -> int:
    """Threads that share launches among them: those of `get_threads`, one where BLAS keeps its own."""
    return get_threads() if can_share() else 1


def _most() -> int:
    """Threads that there may be: NUMBA_NUM_THREADS, else the CPUs that the process may use."""
    return int(config.NUMBA_NUM_THREADS)


def _set_blas_threads(count: int) -> None:
    gemm = find_gemm()
    if gemm is not None and gemm.set_threads is not None:
        gemm.set_threads(count)
        return
    with contextlib.suppress(ImportError):  # without it the BLAS keeps its own count, and describe() says so
        importlib.import_module("threadpoolctl").threadpool_limits(count, "blas")


def describe() -> dict[str, object]:
    """Diagnostics: the threads, whether launches are shared among them, and the BLAS."""
    gemm, count = find_gemm(), blas_threads()
    return {
        "threads": get_threads(),
        "shared": "yes" if can_share() else "no: the threads of this BLAS cannot be told from here",
        "blas": gemm.library if gemm is not None else "not found; products run through np.matmul",
        "blas_integer_bits": gemm.integer_bits if gemm is not None else None,
        "blas_threads": count if count is not None else "not under control",
    }
