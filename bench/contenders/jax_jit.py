"""JAX: the whole step in one jit, its state donated, one call a step, in an epoch with the gather."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from . import Job, Work
from ._jax import forward_of, on_device, parameters, rows, start, state, step_of

SLOW = True


def step(job: Job) -> Work:
    jax = start(job)
    batch = on_device(job.data())
    compiled = jax.jit(step_of(job), donate_argnums=0)
    held = [*compiled(state(job), *batch)]

    def run(times: int) -> None:
        state, loss = held
        for _ in range(times):
            state, loss = compiled(state, *batch)
        held[:] = state, loss

    return Work(run, lambda: jax.block_until_ready(held), lambda: float(held[1]), done=1)


def epoch(job: Job) -> Work:
    """The number of the batch and the sum of losses stay on the device; NumPy draws the order, faster than JAX."""
    jax = start(job)
    import jax.numpy as jnp

    one, (x, y), rng = step_of(job), job.data_set(), np.random.default_rng(0)

    @jax.jit
    def gathered(x: Any, y: Any, order: Any) -> Any:
        return rows(x, order), rows(y, order)

    @functools.partial(jax.jit, donate_argnums=0)
    def compiled(carry: Any, x: Any, y: Any, order: Any) -> Any:
        state, k, total = carry
        # a narrow data set is already in this order
        batch = (x[k], y[k]) if job.narrow else (rows(x, order[k]), rows(y, order[k]))
        state, loss = one(state, *batch)
        return state, k + 1, total + loss

    held, mean = [state(job)], [0.0]

    def once(data: Any, order: Any) -> None:
        carry = (held[0], jnp.zeros((), jnp.int32), jnp.zeros((), job.dtype))
        order = jnp.asarray(order.reshape(job.batches, job.batch))
        if job.narrow:
            data = gathered(*data, order)
        for _ in range(job.batches):
            carry = compiled(carry, *data, order)
        held[0], mean[0] = carry[0], float(carry[2]) / job.batches

    def run(times: int) -> None:
        data = on_device((x, y))
        for _ in range(times):
            once(data, rng.permutation(len(x)))

    def loss() -> float:
        once(on_device((x, y)), np.arange(len(x)))
        return mean[0]

    return Work(run, lambda: jax.block_until_ready(held), loss)


def inference(job: Job) -> Work:
    jax = start(job)
    compiled, p, (x, _) = jax.jit(forward_of(job)), parameters(job), job.data()

    def run(times: int) -> None:
        for _ in range(times):
            np.asarray(compiled(p, x))

    return Work(run, loss=lambda: job.loss(compiled(p, x)))
