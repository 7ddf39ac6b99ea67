"""JAX: many steps in one jit by lax.scan, the state donated; a whole epoch, gathers included, in one call."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from . import Job, Work
from ._jax import on_device, rows, start, state, step_of

SLOW = True


def chunk(job: Job) -> int:
    """Steps in one call: as many as take a fraction of a second on a few CPU cores."""
    flops = 6 * job.n_parameters * job.batch
    return 100 if flops < 2e8 or job.device.startswith("cuda") else 20 if flops < 4e9 else 4


def step(job: Job) -> Work:
    jax = start(job)
    one, batch = step_of(job), on_device(job.data())

    @functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
    def many(steps: int, state: Any, x: Any, y: Any) -> Any:
        return jax.lax.scan(lambda carry, _: one(carry, x, y), state, None, length=steps)

    held: list[Any] = [state(job), None]
    together = chunk(job)

    def run(times: int) -> None:
        while times > 0:
            steps = min(times, together)
            held[:] = many(steps, held[0], *batch)
            times -= steps

    return Work(run, lambda: jax.block_until_ready(held), lambda: float(held[1][-1]), chunk=together)


def epoch(job: Job) -> Work:
    """NumPy draws the order, faster than JAX."""
    jax = start(job)
    one, (x, y), rng = step_of(job), job.data_set(), np.random.default_rng(0)

    @functools.partial(jax.jit, donate_argnums=0)
    def compiled(state: Any, x: Any, y: Any, order: Any) -> Any:
        if job.narrow:
            batches = rows(x, order), rows(y, order)
            state, losses = jax.lax.scan(lambda carry, batch: one(carry, *batch), state, batches)
        else:
            state, losses = jax.lax.scan(lambda carry, i: one(carry, rows(x, i), rows(y, i)), state, order)
        return state, losses.mean()

    held, mean = [state(job)], [0.0]

    def once(data: Any, order: Any) -> None:
        held[0], loss = compiled(held[0], *data, on_device([order.reshape(job.batches, job.batch)])[0])
        mean[0] = float(loss)

    def run(times: int) -> None:
        data = on_device((x, y))
        for _ in range(times):
            once(data, rng.permutation(len(x)))

    def loss() -> float:
        once(on_device((x, y)), np.arange(len(x)))
        return mean[0]

    return Work(run, lambda: jax.block_until_ready(held), loss)
