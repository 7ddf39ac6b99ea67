"""The matrix products of the task alone, by NumPy: its BLAS with all its threads."""

from __future__ import annotations

import itertools

import numpy as np

from . import Job, Work

FLOOR = True
DEVICES, PRECISIONS = ("cpu",), ("float32", "float64")


def step(job: Job, backward: bool = True) -> Work:
    rng, widths, top = np.random.default_rng(2), job.layers, len(job.layers) - 2

    def random(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(job.dtype)

    W = [random(n_in, n_out) for n_in, n_out in itertools.pairwise(widths)]
    a, deltas = [random(job.batch, n) for n in widths], [random(job.batch, n) for n in widths]
    dW = [np.empty_like(weights) for weights in W]
    # (factors, result), made once: views cost as much as a small product
    products = [(a[k], W[k], a[k + 1]) for k in range(top + 1)]
    for k in range(top if backward else -1, -1, -1):
        if k:
            products.append((deltas[k + 1], W[k].T, deltas[k]))
        products.append((a[k].T, deltas[k + 1], dW[k]))

    def run(times: int) -> None:
        for _ in range(times):
            for left, right, result in products:
                np.matmul(left, right, out=result)

    return Work(run)


def epoch(job: Job) -> Work:
    work = step(job)
    work.scale = job.batches
    return work


def inference(job: Job) -> Work:
    return step(job, backward=False)
