"""From a kernel's factory to machine code: one variant per dtype, per scalar function, serial or parallel.

A factory `factory(real, loop, *scalars)` returns the kernel as a Python function over one row; `loop` is `range` in
the serial variant and `prange` in the parallel one, so the two are one text and give the same bits.
"""

import functools
import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import cfunc, float32, float64, int64, prange

from .cache import cached

NUMBA_TYPES = {np.dtype(t): n for t, n in ((np.float32, float32), (np.float64, float64), (np.int64, int64))}

_compiling = threading.Lock()
_seconds = 0.0


@functools.cache
def _source_digest() -> str:
    """Digest of every file of this package: Numba's cache watches only the file of the loop itself."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:12]


@functools.cache
def _compile(
    factory: Callable[..., Any], dtype: np.dtype[Any], parallel: bool, scalars: tuple[Any, ...]
) -> Any:
    kernel = factory(NUMBA_TYPES[dtype], prange if parallel else range, *scalars)
    names = [getattr(s, "__name__", str(s)) for s in scalars]
    variant = "parallel" if parallel else "serial"
    # The name keys the file of the cache: two variants of one text must not share one.
    kernel.__qualname__ = "_".join([factory.__name__, *names, dtype.name, variant, _source_digest()])
    fastmath = getattr(factory, "fastmath", {"contract"})
    options: dict[str, Any] = {"error_model": "numpy", "fastmath": fastmath, "parallel": parallel}
    return cached(lambda cache: cfunc("void(int64)", cache=cache, **options)(kernel))


def cpu_kernel(
    factory: Callable[..., Any], dtype: npt.DTypeLike, *scalars: Any, parallel: bool = False
) -> Any:
    """The compiled kernel of `factory` over `dtype`: `.address` for a row, `.ctypes` to call from Python.

    Compiled at the first call, kept on disk between processes; safe from several threads.
    """
    global _seconds
    with _compiling:
        start = time.perf_counter()
        try:
            return _compile(factory, np.dtype(dtype), parallel, scalars)
        finally:
            _seconds += time.perf_counter() - start


def compile_seconds() -> float:
    """Seconds that `cpu_kernel` has taken in this process: compiling, reading and writing the cache."""
    return _seconds
