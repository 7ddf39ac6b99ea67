"""The first training step of a process, as a user of each library writes it: 784-512x2-10, batch 128, float32, Adam.

python bench/first_step.py NAME     one line of JSON once the step is done: {"loss": ..., "peak": bytes}
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

LAYERS, BATCH, LR = (784, 512, 512, 10), 128, 1e-3


def batch() -> tuple[Any, Any]:
    """x (128, 784) in [0, 1), and class numbers."""
    import numpy as np

    rng = np.random.default_rng(0)
    return rng.random((BATCH, LAYERS[0]), np.float32), rng.integers(0, LAYERS[-1], BATCH)


def gpubp() -> float:
    import gpubp

    trainer = gpubp.Trainer(
        gpubp.Network(LAYERS, device="cpu", seed=0), "softmax_cross_entropy", gpubp.Adam(LR)
    )
    return float(trainer.step(*batch()))


def torch_eager(compiled: bool = False) -> float:
    import torch

    n_in, *widths, n_out = LAYERS
    net = torch.nn.Sequential(
        torch.nn.Linear(n_in, widths[0]),
        torch.nn.ReLU(),
        torch.nn.Linear(widths[0], widths[1]),
        torch.nn.ReLU(),
        torch.nn.Linear(widths[1], n_out),
    )
    model: Any = torch.compile(net) if compiled else net
    optimizer = torch.optim.Adam(net.parameters(), LR)
    x, y = (torch.from_numpy(array) for array in batch())
    loss = torch.nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def torch_compile() -> float:
    return torch_eager(compiled=True)


def jax_jit() -> float:
    """JAX has no optimizers of its own: Adam's equations, as its users' libraries write them."""
    import itertools

    import jax
    import jax.numpy as jnp

    def loss_of(parameters: Any, x: Any, y: Any) -> Any:
        *hidden, (W, b) = parameters
        for V, c in hidden:
            x = jax.nn.relu(x @ V + c)
        return -jnp.take_along_axis(jax.nn.log_softmax(x @ W + b), y[:, None], axis=1).mean()

    @jax.jit
    def step(p: Any, m: Any, v: Any, t: Any, x: Any, y: Any) -> Any:
        loss, g = jax.value_and_grad(loss_of)(p, x, y)
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
        p = jax.tree.map(
            lambda p, m, v: p - LR * (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8), p, m, v
        )
        return p, m, v, loss

    keys = jax.random.split(jax.random.key(0), len(LAYERS) - 1)
    p = [
        (jax.random.normal(key, (n_in, n_out)) * (2 / n_in) ** 0.5, jnp.zeros(n_out))
        for key, (n_in, n_out) in zip(keys, itertools.pairwise(LAYERS), strict=True)
    ]
    zeros = jax.tree.map(jnp.zeros_like, p)
    *_, loss = jax.block_until_ready(step(p, zeros, zeros, 1.0, *batch()))
    return float(loss)


def sklearn() -> float:
    import numpy as np
    from sklearn.neural_network import MLPClassifier

    net = MLPClassifier(LAYERS[1:-1], batch_size=BATCH, learning_rate_init=LR, random_state=0)
    net.partial_fit(*batch(), classes=np.arange(LAYERS[-1]))
    return float(net.loss_)


FIRST_STEPS: dict[str, Callable[[], float]] = {
    "gpubp": gpubp,
    "torch_eager": torch_eager,
    "torch_compile": torch_compile,
    "jax_jit": jax_jit,
    "sklearn": sklearn,
}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    loss = FIRST_STEPS[sys.argv[1]]()
    print("done", file=answers, flush=True)  # here the clock of the parent stops
    from footprint import peak

    print(json.dumps({"loss": loss, "peak": peak()}), file=answers, flush=True)


if __name__ == "__main__":
    main()
