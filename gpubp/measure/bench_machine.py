"""What a benchmark ran on: processor, BLAS, versions, settings that slow it down, and who else was busy."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gpubp.backend.blas import find_gemm

PACKAGES = (
    *("gpubp", "numpy", "numba", "numba-cuda", "cupy-cuda13x", "cupy-cuda12x", "nvmath-python", "cuda-core"),
)
TUNING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # which kernels OpenBLAS takes, and for what cache
LIMITS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_IDLE = (3, 4)  # columns of /proc/stat: time that nobody took


def machine() -> dict[str, Any]:
    """Plain values."""
    return {
        "cpu": _cpu(),
        "cpus": usable_cpus(),
        "features": _features(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions(),
        "blas": blas(),
        "environment": {name: os.environ[name] for name in (*TUNING, *LIMITS) if name in os.environ},
    }


def usable_cpus() -> int:
    """CPUs that this process may run on."""
    return len(_affinity()) or os.cpu_count() or 1


def _affinity() -> set[int]:
    asked = getattr(os, "sched_getaffinity", None)
    return set(asked(0)) if asked else set()


def versions() -> dict[str, str]:
    """Of the packages that are installed here."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def blas() -> dict[str, Any]:
    """What runs the products: its own words, the kernels that it chose for this CPU, its threads; None: not known."""
    gemm = find_gemm()
    if gemm is None:
        return {"library": "np.matmul", "core": None, "threads": None}
    threads = None if gemm.get_threads is None else gemm.get_threads()
    return {"library": gemm.library, "core": core_of(gemm.library), "threads": threads}


def core_of(library: str) -> str | None:
    """The core whose kernels OpenBLAS uses, from what it says of itself: the last of its words that is no setting."""
    words = [word for word in library.split() if "=" not in word]
    return words[-1] if words[:1] == ["OpenBLAS"] and len(words) > 2 and not words[-1].isupper() else None


def _features() -> list[str]:
    """Vector extensions of this CPU, as NumPy found them."""
    for package in ("numpy._core", "numpy.core"):
        with contextlib.suppress(ImportError, AttributeError):
            module = __import__(f"{package}._multiarray_umath", fromlist=["__cpu_features__"])
            return sorted(name for name, there in module.__cpu_features__.items() if there)
    return []


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


class Others:
    """How many of the CPUs that this process may use others kept busy since this was made; None where not known."""

    def __init__(self) -> None:
        self._start = self._read()

    def busy(self) -> float | None:
        """Mean number of CPUs."""
        now = self._read()
        if now is None or self._start is None or now[0] <= self._start[0]:
            return None
        seconds, total, own = (after - before for after, before in zip(now, self._start, strict=True))
        return max(0.0, (total - own) / seconds)

    @staticmethod
    def _read() -> tuple[float, float, float] | None:
        """Seconds now; seconds that those CPUs have worked; seconds that this process has."""
        try:
            lines = Path("/proc/stat").read_text(encoding="ascii", errors="replace").splitlines()
            tick = os.sysconf("SC_CLK_TCK")
        except (OSError, AttributeError, ValueError):
            return None
        names, ticks = {f"cpu{k}" for k in _affinity()}, 0
        for line in lines:
            name, *columns = line.split()
            if name in names:
                spent = [int(column) for column in columns[:8]]  # the rest is counted among them already
                ticks += sum(spent) - sum(spent[k] for k in _IDLE)
        return time.perf_counter(), ticks / tick, sum(os.times()[:4])
