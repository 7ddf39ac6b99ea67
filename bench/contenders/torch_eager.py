"""PyTorch, eager, with its fused Adam."""

from __future__ import annotations

from . import Job, Work
from ._torch import set_precision, step_of, work


def setup(job: Job) -> Work:
    set_precision(job)
    return work(job, step_of(job))
