"""The matrix products of the step alone, by PyTorch: on a GPU in one CUDA graph."""

from __future__ import annotations

import itertools
from typing import Any

from . import Job, Work
from ._torch import graph, set_precision, work

FLOOR = True


def setup(job: Job) -> Work:
    import torch

    set_precision(job)
    storage = torch.bfloat16 if job.precision == "bfloat16" else getattr(torch, job.dtype)

    def random(*shape: int) -> Any:
        return torch.randn(shape, device=job.device, dtype=storage)

    widths, top = job.layers, len(job.layers) - 2
    W = [random(n_in, n_out) for n_in, n_out in itertools.pairwise(widths)]
    a, deltas = [random(job.batch, n) for n in widths], [random(job.batch, n) for n in widths]
    dW = [torch.empty_like(weights) for weights in W]

    def step() -> Any:
        for k in range(top + 1):
            torch.mm(a[k], W[k], out=a[k + 1])
        for k in range(top, -1, -1):
            if k:
                torch.mm(deltas[k + 1], W[k].T, out=deltas[k])
            torch.mm(a[k].T, deltas[k + 1], out=dW[k])
        return None

    prepared = graph(job, step) if job.device.startswith("cuda") else work(job, step)
    prepared.loss = None
    return prepared
