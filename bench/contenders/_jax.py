"""What the contenders over JAX share: the network and the whole step as pure functions."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

from . import BETAS, EPS, LR, Job

PRECISION = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "bfloat16", "float64": "highest"}


def start(job: Job) -> Any:
    """JAX on the job's device; it takes memory as it needs it, for others run beside it."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("JAX_PLATFORMS", "cuda" if job.device.startswith("cuda") else "cpu")
    import jax

    if job.precision == "float64":
        jax.config.update("jax_enable_x64", True)
    return jax


def forward_of(job: Job) -> Callable[[Any, Any], Any]:
    """forward(parameters, x) -> outputs."""
    import jax
    import jax.numpy as jnp

    f = {"relu": jax.nn.relu, "tanh": jnp.tanh, "gelu": lambda z: jax.nn.gelu(z, approximate=False)}[
        job.activation
    ]
    short, precision = job.precision == "bfloat16", PRECISION[job.precision]

    def product(a: Any, W: Any, last: bool) -> Any:
        if not short:
            return jnp.dot(a, W, precision=precision)
        kind = jnp.float32 if last else jnp.bfloat16
        return jnp.dot(a.astype(jnp.bfloat16), W.astype(jnp.bfloat16), preferred_element_type=kind)

    def forward(parameters: Any, x: Any) -> Any:
        a = x
        for k, (W, b) in enumerate(parameters):
            last = k == len(parameters) - 1
            z = product(a, W, last)
            z = z + b.astype(z.dtype)
            a = z if last else f(z)
        return a

    return forward


def step_of(job: Job) -> Callable[..., Any]:
    """step(state, x, y) -> (state, loss)."""
    import jax
    import jax.numpy as jnp

    forward = forward_of(job)

    def loss_of(parameters: Any, x: Any, y: Any) -> Any:
        a = forward(parameters, x)
        if job.regression:
            return ((a - y) ** 2).mean()
        return -jnp.take_along_axis(jax.nn.log_softmax(a), y[:, None], axis=1).mean()

    def step(state: Any, x: Any, y: Any) -> Any:
        p, m, v, t = state
        loss, g = jax.value_and_grad(loss_of)(p, x, y)
        t = t + 1
        m = jax.tree.map(lambda m, g: BETAS[0] * m + (1 - BETAS[0]) * g, m, g)
        v = jax.tree.map(lambda v, g: BETAS[1] * v + (1 - BETAS[1]) * g * g, v, g)
        # 1 - beta^t, of which float32 loses three digits where it is written so
        first, second = (-jnp.expm1(t.astype(x.dtype) * math.log(beta)) for beta in BETAS)
        p = jax.tree.map(lambda p, m, v: p - LR * (m / first) / (jnp.sqrt(v / second) + EPS), p, m, v)
        return (p, m, v, t), loss

    return step


def parameters(job: Job) -> Any:
    import jax.numpy as jnp

    return [(jnp.asarray(W), jnp.asarray(b)) for W, b in job.parameters()]


def state(job: Job) -> Any:
    """Parameters, both moments and the step count before the first step."""
    import jax
    import jax.numpy as jnp

    p = parameters(job)
    zeros = [jax.tree.map(jnp.zeros_like, p) for _ in range(2)]
    return (p, *zeros, jnp.zeros((), jnp.int32))


def on_device(arrays: Any) -> tuple[Any, ...]:
    import jax.numpy as jnp

    return tuple(jnp.asarray(array) for array in arrays)


def rows(array: Any, indices: Any) -> Any:
    """A gather that does not look whether an index is out of bounds."""
    return array.at[indices].get(mode="promise_in_bounds")
