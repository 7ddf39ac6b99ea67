"""The matrix products of the task alone, as gpubp launches them: no contender, the floor of every one."""

from __future__ import annotations

from . import Job, Work
from .engine import network

FLOOR = True
PRECISIONS = ("float32", "tf32", "bfloat16", "float16", "float64")


def step(job: Job, backward: bool = True) -> Work:
    import numpy as np

    from gpubp.backend import State

    net = network(job)
    ops, storage, layers = net.backend, net.backend.storage(net.dtype), net.layers
    top = len(layers) - 1
    with ops.ordered():
        a = [net.to_storage(job.data()[0])]
        a += [ops.zeros((job.batch, layer.n_out), storage) for layer in layers]
        deltas = [ops.zeros((job.batch, layer.n_out), storage) for layer in layers]
        z = ops.zeros((job.batch, layers[top].n_out), net.dtype)
        rng = np.random.default_rng(2)
        for array in (*a[1:], *deltas):  # zeros would draw less power, and so run at higher clock rates
            ops.cast(ops.to_device(rng.standard_normal(array.shape).astype(net.dtype)), array)
        with ops.capture(State(ops, 0)) as recording:
            for k, layer in enumerate(layers):
                ops.matmul(a[k], layer.stored_W, out=z if k == top else a[k + 1])
            for k in range(top if backward else -1, -1, -1):
                if k:
                    ops.matmul(deltas[k], layers[k].stored_W.T, out=deltas[k - 1])
                ops.matmul(a[k].T, deltas[k], out=layers[k].dW)

    def run(times: int) -> None:
        with ops.ordered():
            recording.replay(times)

    return Work(run, ops.synchronize)


def epoch(job: Job) -> Work:
    work = step(job)
    work.scale = job.batches
    return work


def inference(job: Job) -> Work:
    return step(job, backward=False)
