"""What OpenBLAS's settings in the environment cost: one product with and without them, each in a process of its own."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Iterable

_TURNS = 2
_PRODUCT = """
import sys, time
sys.path[:] = [path for path in sys.path if path]
import numpy as np
a, b, c = (np.ones((1024, 1024), np.float32) for _ in range(3))
best, end = 1e9, time.perf_counter() + 0.25
while time.perf_counter() < end:
    start = time.perf_counter()
    np.matmul(a, b, out=c)
    best = min(best, time.perf_counter() - start)
print(2 * 1024**3 / best)
"""


def with_and_without(variables: Iterable[str]) -> dict[str, float] | None:
    """FLOP/s of a float32 product of 1024 rows {"with": ..., "without": ...} these variables; None where one fails."""
    bare = {name: value for name, value in os.environ.items() if name not in set(variables)}
    found: dict[str, list[float]] = {"with": [], "without": []}
    for _ in range(_TURNS):
        for name, environment in (("with", dict(os.environ)), ("without", bare)):
            try:
                run = subprocess.run(
                    [sys.executable, "-c", _PRODUCT],
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=30,
                    check=True,
                )
                found[name].append(float(run.stdout))
            except (OSError, subprocess.SubprocessError, ValueError):
                return None
    return {name: statistics.mean(rates) for name, rates in found.items()}
