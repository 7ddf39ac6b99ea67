"""PyTorch, eager, with its fused Adam."""

from __future__ import annotations

from . import Job, Work
from ._torch import epoch_work, inference_work, start, step_of, step_work


def step(job: Job) -> Work:
    start(job)
    return step_work(job, step_of(job))


def epoch(job: Job) -> Work:
    start(job)
    return epoch_work(job)


def inference(job: Job) -> Work:
    start(job)
    return inference_work(job)
