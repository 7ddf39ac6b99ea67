"""gpubp: the captured step of `Trainer`, replayed as `fit` replays it; `fit` itself; `forward`."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import BETAS, EPS, LR, Job, Work

PRECISIONS = ("float32", "tf32", "bfloat16", "float16", "float64")


def step(job: Job) -> Work:
    from gpubp.kernels.losses import LOSS
    from gpubp.training.step import Step

    trainer = make(job)
    x, y = job.data()
    ops = trainer.net.backend
    with ops.ordered():
        step = Step(trainer, job.batch, labels=not job.regression)
        step.fill(x, y, np.ones(job.batch, job.dtype))
        trainer.set_lr(LR)
        step.run(1)

    def loss() -> float:
        return float(ops.to_host(trainer.state.stats)[LOSS])

    def run(times: int) -> None:
        with ops.ordered():
            step.run(times)

    return Work(run, ops.synchronize, loss, done=1)


def epoch(job: Job) -> Work:
    """One call of `fit` for all epochs of a reading: its checks and its captures are divided among them."""
    trainer = make(job)
    x, y = job.data_set()

    def run(times: int, shuffle: bool = True) -> None:
        trainer.fit(x, y, epochs=times, batch_size=job.batch, shuffle=shuffle)

    def loss() -> float:
        run(1, shuffle=False)
        return float(trainer.history["loss"][-1])

    return Work(run, trainer.net.backend.synchronize, loss)


def inference(job: Job) -> Work:
    net = network(job)
    x, _ = job.data()

    def once() -> Any:
        return net.backend.to_host(net.forward(x))

    def run(times: int) -> None:
        for _ in range(times):
            once()

    return Work(run, loss=lambda: job.loss(once()))


def make(job: Job) -> Any:
    """A trainer of the job's network."""
    import gpubp

    loss = "mse" if job.regression else "softmax_cross_entropy"
    return gpubp.Trainer(network(job), loss, gpubp.Adam(LR, betas=BETAS, eps=EPS), seed=0)


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
