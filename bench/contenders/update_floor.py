"""The memory traffic of Adam's update alone: p, g, m, v read; p, m, v (and a short copy of p on a GPU) written.

On a CPU a pass over these arrays with a few operations, by as many threads as are quickest; on a GPU a copy that moves
as many bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from . import Job, Work, threads

FLOOR = True


def step(job: Job) -> Work:
    return _copy(job) if job.device.startswith("cuda") else _pass(job)


def epoch(job: Job) -> Work:
    work = step(job)
    work.scale = job.batches
    return work


def _pass(job: Job) -> Work:
    rng = np.random.default_rng(0)
    arrays = [rng.random(job.n_parameters, job.dtype) for _ in range(4)]
    kernels = _kernels()
    times = [_seconds(kernel, arrays) for kernel in kernels]
    kernel = kernels[int(np.argmin(times))]
    return Work(lambda times: kernel(*arrays, times))


def _kernels() -> list[Callable[..., None]]:
    """One thread, which is quicker where little is moved, and all of them."""
    import numba

    def traffic(p: Any, g: Any, m: Any, v: Any, times: int) -> None:
        for _ in range(times):
            for i in numba.prange(len(p)):  # every value alternates between two: none grows or vanishes
                p[i] = g[i] - p[i]
                m[i] = g[i] - m[i]
                v[i] = g[i] - v[i]

    numba.set_num_threads(threads())
    return [numba.njit(traffic), numba.njit(traffic, parallel=True)]


def _seconds(kernel: Callable[..., None], arrays: list[Any]) -> float:
    """The quickest of five calls, after one that compiles."""
    took = []
    for _ in range(6):
        start = time.perf_counter()
        kernel(*arrays, 10)
        took.append(time.perf_counter() - start)
    return min(took[1:])


def _copy(job: Job) -> Work:
    import torch

    from ._torch import graph

    size = 7 * np.dtype(job.dtype).itemsize + (2 if job.precision in ("bfloat16", "float16") else 0)
    half = job.n_parameters * size // 2
    source, target = (torch.zeros(half, dtype=torch.uint8, device=job.device) for _ in range(2))

    def once() -> Any:
        target.copy_(source)
        return None

    prepared = graph(job, once)
    prepared.loss = None
    return prepared
