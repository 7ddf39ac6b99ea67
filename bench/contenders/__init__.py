"""Contenders of the comparison, one file each: `setup(job)` prepares a training step and returns it as `Work`.

All do the same work from the same start: forward, softmax cross-entropy of class numbers, backward, Adam with PyTorch's
defaults, on one batch that lies on the device. A module may say `SLOW = True` (it compiles for long: a process for each
shape), `DEVICES` and `PRECISIONS` (where it exists at all); `FLOOR = True` marks a part of the step, no contender.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

LR, BETAS, EPS = 1e-3, (0.9, 0.999), 1e-8
CONTENDERS = (
    *("engine", "torch_eager", "torch_compile", "torch_graph", "torch_master", "jax_jit", "jax_scan"),
    *("products_floor", "torch_products_floor", "update_floor"),
)


@dataclass(frozen=True)
class Job:
    """One training step to be timed. precision: "float32", which is strict, "tf32", "bfloat16" or "float64"."""

    layers: tuple[int, ...]
    batch: int
    precision: str
    device: str
    activation: str = "relu"

    @property
    def dtype(self) -> str:
        """Of parameters, results and optimizer state."""
        return "float64" if self.precision == "float64" else "float32"

    @property
    def n_parameters(self) -> int:
        return sum(n_in * n_out + n_out for n_in, n_out in itertools.pairwise(self.layers))

    def data(self) -> tuple[Any, Any]:
        """One batch: x (batch, n_in) in [0, 1) and class numbers."""
        rng = np.random.default_rng(0)
        return rng.random((self.batch, self.layers[0])).astype(self.dtype), rng.integers(
            0, self.layers[-1], self.batch
        )

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


@dataclass
class Work:
    """A prepared step. `run(n)` makes n steps, perhaps without waiting; `sync()` waits for them.

    `loss()` is the loss of the last step, before its update; None for a floor. `done` are steps that the preparation
    made, and `chunk` is how many steps one call of the contender makes.
    """

    run: Callable[[int], None]
    sync: Callable[[], None]
    loss: Callable[[], float] | None = None
    done: int = 0
    chunk: int = 1
