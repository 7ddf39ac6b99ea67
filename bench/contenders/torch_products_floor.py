"""The matrix products of the task alone, by PyTorch: on a GPU in one CUDA graph."""

from __future__ import annotations

import itertools
from typing import Any

from . import Job, Work
from ._torch import graph, start, step_work

FLOOR = True


def step(job: Job, backward: bool = True) -> Work:
    import torch

    start(job)
    storage = torch.bfloat16 if job.precision == "bfloat16" else getattr(torch, job.dtype)

    def random(*shape: int) -> Any:
        return torch.randn(shape, device=job.device, dtype=storage)

    widths, top = job.layers, len(job.layers) - 2
    W = [random(n_in, n_out) for n_in, n_out in itertools.pairwise(widths)]
    a, deltas = [random(job.batch, n) for n in widths], [random(job.batch, n) for n in widths]
    dW = [torch.empty_like(weights) for weights in W]

    def once() -> Any:
        for k in range(top + 1):
            torch.mm(a[k], W[k], out=a[k + 1])
        for k in range(top if backward else -1, -1, -1):
            if k:
                torch.mm(deltas[k + 1], W[k].T, out=deltas[k])
            torch.mm(a[k].T, deltas[k + 1], out=dW[k])
        return None

    prepared = graph(job, once) if job.device.startswith("cuda") else step_work(job, once)
    prepared.loss = None
    return prepared


def epoch(job: Job) -> Work:
    work = step(job)
    work.scale = job.batches
    return work


def inference(job: Job) -> Work:
    return step(job, backward=False)
