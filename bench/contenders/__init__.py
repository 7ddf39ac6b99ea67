"""Contenders of the comparison, one file each: `step(job)`, `epoch(job)` and `inference(job)` prepare a task as `Work`.

All do the same work from the same start: forward, softmax cross-entropy of class numbers (mean squared error where the
network has one output), backward, Adam with PyTorch's defaults. Tasks:

    step         one training step on one batch that lies on the device
    epoch        one epoch over a data set given in NumPy arrays: a new random order, every batch gathered and trained
                 on once, the mean loss known at its end; what is paid once for several is divided by their number
    inference    one batch in as a NumPy array, its outputs out as one: the whole call as a user makes it

A module has the functions of the tasks that it takes part in, and may say `SLOW = True` (it compiles for long),
`DEVICES`, `PRECISIONS` and `ACTIVATIONS` (what it offers); `FLOOR = True` marks a part of the task, no contender, which
does not depend on the activation.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

LR, BETAS, EPS = 1e-3, (0.9, 0.999), 1e-8
TASKS = ("step", "epoch", "inference")
CONTENDERS = (
    *(
        "engine",
        "torch_eager",
        "torch_compile",
        "torch_graph",
        "torch_master",
        "jax_jit",
        "jax_scan",
        "sklearn",
    ),
    *("products_floor", "torch_products_floor", "numpy_products_floor", "update_floor"),
)

# those that run on a CPU, by the names that the pictures and the tables of results give them
PEERS = {
    "torch_eager": "PyTorch eager",
    "torch_compile": "torch.compile",
    "jax_jit": "JAX jit",
    "jax_scan": "JAX scan",
    "sklearn": "scikit-learn",
}


def title(name: str) -> str:
    """Of a contender in a table: that of a peer, else its file's."""
    return PEERS.get(name, name)


def threads() -> int:
    """That everyone may use: the CPUs of the affinity mask."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Job:
    """One task to be timed. precision: "float32", which is strict, "tf32", "bfloat16" or "float64".

    A data set has `batches` whole batches.
    """

    layers: tuple[int, ...]
    batch: int
    precision: str
    device: str
    activation: str = "relu"
    task: str = "step"
    batches: int = 1

    @property
    def dtype(self) -> str:
        """Of parameters, results and optimizer state."""
        return "float64" if self.precision == "float64" else "float32"

    @property
    def regression(self) -> bool:
        """Mean squared error over float targets rather than cross-entropy of class numbers."""
        return self.layers[-1] == 1

    @property
    def narrow(self) -> bool:
        """Few inputs: PyTorch and JAX are quicker when they gather the data set once an epoch, else batch by batch."""
        return self.layers[0] <= 64

    @property
    def n_parameters(self) -> int:
        return sum(n_in * n_out + n_out for n_in, n_out in itertools.pairwise(self.layers))

    def data(self) -> tuple[Any, Any]:
        """One batch: x (batch, n_in) in [-1, 1); class numbers, or targets (batch, 1)."""
        return self._examples(self.batch)

    def data_set(self) -> tuple[Any, Any]:
        """`batches` of them."""
        return self._examples(self.batch * self.batches)

    def _examples(self, n: int) -> tuple[Any, Any]:
        """Every input stands there twice with two targets: no loss goes to 0, where numbers too small to be normal
        would change the speed after as many steps as one contender makes and another does not."""
        rng, half = np.random.default_rng(0), n // 2
        x = 2 * rng.random((n, self.layers[0]), self.dtype) - 1
        x[half : 2 * half] = x[:half]
        if self.regression:
            return x, rng.standard_normal((n, 1)).astype(self.dtype)
        y = rng.integers(0, self.layers[-1], n)
        y[half : 2 * half] = (y[:half] + 1) % self.layers[-1]
        return x, y

    def parameters(self) -> list[tuple[Any, Any]]:
        """[(W (n_in, n_out), b), ...]: He's initial weights, the same for all."""
        rng = np.random.default_rng(1)
        return [
            (
                (rng.standard_normal((n_in, n_out)) * (2 / n_in) ** 0.5).astype(self.dtype),
                np.zeros(n_out, self.dtype),
            )
            for n_in, n_out in itertools.pairwise(self.layers)
        ]

    def loss(self, outputs: Any, probabilities: bool = False) -> float:
        """Of outputs for the batch: by it, outputs of inference are compared."""
        _, y = self.data()
        a = np.asarray(outputs, np.float64).reshape(self.batch, -1)
        if self.regression:
            return float(((a - y) ** 2).mean())
        top = a.max(1, keepdims=True)
        log_p = np.log(a) if probabilities else a - top - np.log(np.exp(a - top).sum(1, keepdims=True))
        return float(-log_p[np.arange(self.batch), y].mean())


def nothing() -> None:
    """To wait for, where `run` returns when it is done."""


@dataclass
class Work:
    """A prepared task. `run(n)` does it n times, perhaps without waiting; `sync()` waits.

    step: `loss()` is that of the last step, before its update. epoch: `loss()` makes one epoch in the order of the data
    set and returns its mean loss. inference: `loss()` is `job.loss` of the outputs. None for a floor.
    `done` are steps that the preparation made, `chunk` is how many steps one call makes, and one time of the task is
    `scale` runs.
    """

    run: Callable[[int], None]
    sync: Callable[[], None] = nothing
    loss: Callable[[], float] | None = None
    done: int = 0
    chunk: int = 1
    scale: int = 1
