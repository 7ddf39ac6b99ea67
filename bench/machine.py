"""What a benchmark ran on: processor, BLAS, threads, GPU, driver, versions, commit; and a fair environment."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from contenders import threads

PACKAGES = (
    *("gpubp", "numpy", "numba", "numba-cuda", "cupy-cuda13x", "cupy-cuda12x", "nvmath-python", "cuda-core"),
    *("torch", "triton", "jax", "jaxlib", "scikit-learn", "pytest"),
)
# Variables that tie a library to other instructions, blocks or threads than it would choose on this machine: a
# contender that reads one would be slower (or faster) than its users see it, and the others not.
PINS = (
    *(
        "OPENBLAS_CORETYPE",
        "OPENBLAS_L2_SIZE",
        "OPENBLAS_BLOCK_FACTOR",
        "BLIS_ARCH_TYPE",
        "NVPL_BLAS_DEBUG_CPU_TYPE",
    ),
    *("MKL_DEBUG_CPU_TYPE", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"),
    *("ONEDNN_DEFAULT_FPMATH_MODE", "ATEN_CPU_CAPABILITY", "NPY_DISABLE_CPU_FEATURES", "NUMBA_CPU_NAME"),
    *("NUMBA_CPU_FEATURES", "NUMBA_OPT", "NUMBA_DISABLE_JIT", "XLA_FLAGS"),
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"),
    *(
        "OMP_WAIT_POLICY",
        "GOMP_SPINCOUNT",
        "OMP_PROC_BIND",
        "GOMP_CPU_AFFINITY",
        "KMP_BLOCKTIME",
        "KMP_AFFINITY",
    ),
)
_BLAS = """
import json, numpy
from threadpoolctl import threadpool_info
pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
print(json.dumps(["{internal_api} {version} {architecture}, {num_threads} threads".format(**pool) for pool in pools]))
"""


def environment() -> dict[str, str]:
    """This process's environment without PINS: that of every contender."""
    return {name: value for name, value in os.environ.items() if name not in PINS}


def removed() -> dict[str, str]:
    """The PINS that are set here."""
    return {name: os.environ[name] for name in PINS if name in os.environ}


def describe() -> dict[str, object]:
    """Plain values; the GPU's entries are there only where nvidia-smi answers."""
    blas = _output(sys.executable, "-c", _BLAS, env=environment())
    found: dict[str, object] = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "threads": threads(),
        "blas": (json.loads(blas) or ["none found"])[0]
        if blas
        else "unknown: threadpoolctl is not installed",
        "removed_from_environment": removed(),
        "commit": _output("git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD") or "unknown",
        "changed": bool(_output("git", "-C", str(Path(__file__).parent), "status", "--porcelain")),
        "versions": versions(),
    }
    query = _output(
        "nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm", "--format=csv,noheader"
    )
    if query:
        name, driver, memory, clock = (part.strip() for part in query.splitlines()[0].split(","))
        found["gpu"] = {"name": name, "driver": driver, "memory": memory, "max_clock": clock}
    return found


def versions() -> dict[str, str]:
    """Of the packages that are installed here."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor()
    names = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
    return names[0] if names else platform.processor()


def _output(*command: str, env: dict[str, str] | None = None) -> str:
    """Standard output of a command; "" where it cannot be run or fails."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20, env=env)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout.strip() if run.returncode == 0 else ""
