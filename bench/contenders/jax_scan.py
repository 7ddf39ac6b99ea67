"""JAX: many steps in one jit by lax.scan, the state donated."""

from __future__ import annotations

import functools
from typing import Any

from . import Job, Work
from ._jax import make, start

SLOW = True
STEPS = 100  # in one call


def setup(job: Job) -> Work:
    jax = start(job)
    step, state, batch = make(job)

    @functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
    def many(steps: int, state: Any, x: Any, y: Any) -> Any:
        return jax.lax.scan(lambda carry, _: step(carry, x, y), state, None, length=steps)

    held: list[Any] = [state, None]

    def run(times: int) -> None:
        while times > 0:
            steps = min(times, STEPS)
            held[:] = many(steps, held[0], *batch)
            times -= steps

    return Work(run, lambda: jax.block_until_ready(held), lambda: float(held[1][-1]), chunk=STEPS)
