"""PyTorch, torch.compile: on a GPU forward and backward as CUDA graphs (max-autotune), then the fused Adam.

On a CPU the default mode and a compiled Adam, which were quicker there than max-autotune and the fused Adam.
"""

from __future__ import annotations

import os
import types
from typing import Any

from . import Job, Work
from ._torch import epoch_work, inference_work, start, step_of, step_work

SLOW = True
_WARM_UP = 4  # compiles, warms up, records the graphs, replays them once


def step(job: Job) -> Work:
    compiler = _compiler(job)
    prepared = step_work(job, step_of(job, compiler))
    prepared.run(_WARM_UP)
    prepared.sync()
    prepared.done = _WARM_UP
    return prepared


def epoch(job: Job) -> Work:
    compiler = _compiler(job)
    return epoch_work(job, compiler)


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
