"""gpubp: the captured step of `Trainer`, replayed as `fit` replays it."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import BETAS, EPS, LR, Job, Work

PRECISIONS = ("float32", "tf32", "bfloat16", "float16", "float64")


def setup(job: Job) -> Work:
    import gpubp
    from gpubp.kernels.losses import LOSS
    from gpubp.training.step import Step

    net = network(job)
    trainer = gpubp.Trainer(net, "softmax_cross_entropy", gpubp.Adam(LR, betas=BETAS, eps=EPS))
    x, y = job.data()
    ops = net.backend
    with ops.ordered():
        step = Step(trainer, job.batch, labels=True)
        step.fill(x, y, np.ones(job.batch, job.dtype))
        trainer.set_lr(LR)
        step.run(1)

    def loss() -> float:
        return float(ops.to_host(trainer.state.stats)[LOSS])

    def run(times: int) -> None:
        with ops.ordered():
            step.run(times)

    return Work(run, ops.synchronize, loss, done=1)


def network(job: Job) -> Any:
    """The job's network with its parameters."""
    import gpubp

    precision = None if job.precision == job.dtype else job.precision
    net = gpubp.Network(
        list(job.layers), job.activation, device=job.device, dtype=job.dtype, precision=precision, seed=0
    )
    values = {}
    for k, (W, b) in enumerate(job.parameters()):
        values[f"{k}.W"], values[f"{k}.b"] = W, b
    net.load_parameters(values)
    return net
