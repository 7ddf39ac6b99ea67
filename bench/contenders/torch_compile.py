"""PyTorch, torch.compile: on a GPU forward and backward as CUDA graphs (max-autotune), then the fused Adam.

On a CPU the default mode, at least as quick there; and the fused Adam or a compiled one, whichever is quicker.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import time
import types
from typing import Any

from . import Job, Work
from ._torch import epoch_work, inference_work, start, step_of, step_work

SLOW = True
_WARM_UP = 4  # compiles, warms up, records the graphs, replays them once


def step(job: Job) -> Work:
    compiler = _compiler(job)
    prepared = step_work(job, step_of(job, compiler, _compiled_update(job)))
    prepared.run(_WARM_UP)
    prepared.sync()
    prepared.done = _WARM_UP
    return prepared


def epoch(job: Job) -> Work:
    compiler = _compiler(job)
    return epoch_work(job, compiler, _compiled_update(dataclasses.replace(job, task="step")))


@functools.cache
def _compiled_update(job: Job) -> bool:
    """Whether a step with a compiled Adam is quicker than one with the fused."""
    if job.device.startswith("cuda"):
        return False
    took = []
    for compiled in (False, True):
        one = step_of(job, _compiler(job), compiled)
        for _ in range(_WARM_UP):
            one()
        times, end = [], time.perf_counter() + 0.2
        while len(times) < 3 or time.perf_counter() < end:
            start_of = time.perf_counter()
            one()
            times.append(time.perf_counter() - start_of)
        took.append(sorted(times)[len(times) // 2])
    return took[1] < took[0]


def inference(job: Job) -> Work:
    compiler = _compiler(job)
    return inference_work(job, compiler)


def _compiler(job: Job) -> Any:
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "4")
    import torch

    start(job)
    mode = "max-autotune" if job.device.startswith("cuda") else "default"

    def compiler(function: Any) -> Any:
        # a code object of its own: otherwise the guards of every job of this process are looked through in each call
        code, closure = function.__code__.replace(), function.__closure__
        own = types.FunctionType(code, function.__globals__, function.__name__, closure=closure)
        return torch.compile(own, mode=mode, dynamic=False)

    return compiler
