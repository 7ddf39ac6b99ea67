"""What a benchmark ran on: processor, GPU, driver, versions, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    *("gpubp", "numpy", "numba", "numba-cuda", "cupy-cuda13x", "cupy-cuda12x", "nvmath-python", "cuda-core"),
    *("torch", "triton", "jax", "jaxlib", "scikit-learn", "pytest"),
)


def describe() -> dict[str, object]:
    """Plain values; the GPU's entries are there only where nvidia-smi answers."""
    found: dict[str, object] = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
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


def _output(*command: str) -> str:
    """Standard output of a command; "" where it cannot be run or fails."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout.strip() if run.returncode == 0 else ""
