"""PyTorch, torch.compile(mode="max-autotune"): on a GPU forward and backward as CUDA graphs, then the fused Adam."""

from __future__ import annotations

import os

from . import Job, Work
from ._torch import set_precision, step_of, work

SLOW = True
_WARM_UP = 4  # compiles, warms up, records the graphs, replays them once


def setup(job: Job) -> Work:
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "4")
    import torch

    set_precision(job)
    step = step_of(job, lambda loss: torch.compile(loss, mode="max-autotune"))
    prepared = work(job, step)
    prepared.run(_WARM_UP)
    prepared.sync()
    prepared.done = _WARM_UP
    return prepared
