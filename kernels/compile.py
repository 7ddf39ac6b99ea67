"""From a kernel's factory to machine code: one variant per dtype and per scalar function.

A factory `factory(real, *scalars)` returns the kernel as a Python function `kernel(row, me, team)`: see rows.py for the
row, team.py for the team. Its attribute `fastmath` says what LLVM may do to its arithmetic, `interleave` how many
vectors of a loop it makes in turn.
"""

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import llvmlite.binding
import numpy as np
import numpy.typing as npt
from numba import float32, float64, int64, void
from numba.core.ccallback import CFunc

from gpubp.locks import lock

from .cache import cached, source_digest

NUMBA_TYPES = {np.dtype(t): n for t, n in ((np.float32, float32), (np.float64, float64), (np.int64, int64))}

compiling: Callable[[str], None] | None = (
    None  # told the name of a kernel before it is compiled; not from the cache
)

_lock = lock()
_seconds = 0.0


class _Kernel(CFunc):
    """A C function `void kernel(int64 row, int64 me, int64 team)`, its loops interleaved so many times."""

    interleave = 0

    def _compile_uncached(self) -> Any:
        if compiling is not None:
            compiling(self.__name__)
        with _interleaving(self.interleave):
            made = super()._compile_uncached()  # type: ignore[misc]
            made.library.finalize()  # else LLVM would optimise it when it is first asked for, and that is later
        return made


@contextmanager
def _interleaving(count: int) -> Iterator[None]:
    """Has LLVM make so many vectors of a loop in turn; 0 leaves the choice to it.

    By itself it makes one at a time in a long loop: then each constant of a polynomial is loaded for each vector anew,
    and what one vector waits for no other fills. The option is one of the whole process, but whatever Numba compiles
    holds its lock, as this does. It is as old as LLVM's vectoriser; an unknown one would end the process.
    """
    if not count:
        yield
        return
    try:
        llvmlite.binding.set_option("", f"-force-vector-interleave={count}")
        yield
    finally:
        llvmlite.binding.set_option("", "-force-vector-interleave=0")


@functools.cache
def _compile(factory: Callable[..., Any], dtype: np.dtype[Any], scalars: tuple[Any, ...]) -> Any:
    kernel = factory(NUMBA_TYPES[dtype], *scalars)
    names = [factory.__name__, *(getattr(s, "__name__", str(s)) for s in scalars), dtype.name]
    # The qualified name keys the file of the cache: two variants of one text must not share one.
    kernel.__name__, kernel.__qualname__ = " ".join(names), "_".join([*names, source_digest()])
    options = {"error_model": "numpy", "fastmath": getattr(factory, "fastmath", {"contract"})}

    def compile(cache: bool) -> Any:
        made = _Kernel(kernel, ((int64, int64, int64), void), {}, options)
        made.interleave = getattr(factory, "interleave", 0)
        if cache:
            made.enable_caching()
        made.compile()
        return made

    return cached(compile)


def cpu_kernel(factory: Callable[..., Any], dtype: npt.DTypeLike, *scalars: Any) -> Any:
    """The compiled kernel of `factory` over `dtype`: `.address` for a row, `.ctypes` to call from Python.

    Compiled at the first call, kept on disk between processes; safe from several threads.
    """
    global _seconds
    with _lock:
        start = time.perf_counter()
        try:
            return _compile(factory, np.dtype(dtype), scalars)
        finally:
            _seconds += time.perf_counter() - start


def compile_seconds() -> float:
    """Seconds that `cpu_kernel` has taken in this process: compiling, reading and writing the cache."""
    return _seconds
