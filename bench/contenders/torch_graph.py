"""PyTorch, the whole step with a fused, capturable Adam captured by hand into one CUDA graph."""

from __future__ import annotations

from . import Job, Work
from ._torch import graph, start, step_of

DEVICES = ("cuda",)


def step(job: Job) -> Work:
    start(job)
    return graph(job, step_of(job))
