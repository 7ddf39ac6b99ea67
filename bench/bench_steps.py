"""Whole training steps: loss, gradients and update of the first are compared with float64, then the next are timed."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from rates import report

import gpubp
from gpubp.kernels.losses import LOSS
from gpubp.measure.checking import worst
from gpubp.measure.loss_checks import reference
from gpubp.training.step import Step

SHAPES = {
    "8-32-32-1 b32": ((8, 32, 32, 1), 32),
    "64-64-64-10 b32": ((64, 64, 64, 10), 32),
    "784-128-10 b128": ((784, 128, 10), 128),
    "784-512x2-10 b128": ((784, 512, 512, 10), 128),
    "784-1024x3-10 b256": ((784, 1024, 1024, 1024, 10), 256),
    "784-2048x3-10 b1024": ((784, 2048, 2048, 2048, 10), 1024),
    "54-256x4-7 b4096": ((54, 256, 256, 256, 256, 7), 4096),
}
BOUNDS = {"float32": 1e-5, "float64": 1e-12}  # of loss and gradients, relative to the largest of an array
ADAM = gpubp.Adam(1e-3)


def _f(name: str, z: Any) -> tuple[Any, Any]:
    """f(z) and f'(z) in float64."""
    if name == "relu":
        return np.maximum(z, 0.0), (z > 0).astype(np.float64)
    if name == "tanh":
        return np.tanh(z), 1 - np.tanh(z) ** 2
    from scipy.special import ndtr

    return z * ndtr(z), ndtr(z) + z * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)


def _reference(net: Any, activation: str, loss: Any, x: Any, y: Any) -> tuple[float, dict[str, Any]]:
    """Loss and gradients by the four equations, in NumPy and float64, from the network's parameters."""
    p = {name: np.asarray(view, np.float64) for name, view in net.parameters().items()}
    top, a, slopes = len(net.layers) - 1, [np.asarray(x, np.float64)], []
    for k in range(top):
        out, slope = _f(activation, a[k] @ p[f"{k}.W"] + p[f"{k}.b"])
        a.append(out)
        slopes.append(slope)
    z = a[top] @ p[f"{top}.W"] + p[f"{top}.b"]
    value, delta, *_ = reference(loss, net.layers[top].activation, z, y, np.ones(len(x)))
    gradients = {}
    for k in range(top, -1, -1):
        gradients |= {f"{k}.W": a[k].T @ delta, f"{k}.b": delta.sum(axis=0)}
        if k:
            delta = delta @ p[f"{k}.W"].T * slopes[k - 1]
    return value, gradients


def _validate(step: Step, activation: str, x: Any, y: Any, bound: float) -> None:
    """Makes the first step; fails where loss, gradients or new parameters are not those of float64."""
    trainer, net = step.trainer, step.trainer.net
    before = np.array(net.flat, np.float64)
    value, gradients = _reference(net, activation, trainer.loss, x, y)
    step.run(1)
    found = float(net.backend.to_host(trainer.state.stats)[LOSS])
    assert abs(found - value) <= bound * abs(value), f"loss: expected {value}; got {found}"
    for name, got in net.views(net.flat_gradients).items():
        error = worst(got, gradients[name], np.abs(gradients[name]).max())
        assert error <= bound, f"gradient {name}: error {error:.3g} > {bound:g}"
    g = np.array(net.flat_gradients, np.float64)  # the update is compared for the gradients that it was given
    want = before - ADAM.lr * g / (np.abs(g) + ADAM.eps)
    error = worst(net.flat, want, np.abs(before) + ADAM.lr)
    assert error <= bound, f"update: error {error:.3g} > {bound:g}"


@pytest.mark.parametrize(
    ("shape", "activation"),
    [*itertools.product(SHAPES, ["relu"]), *itertools.product(["784-512x2-10 b128"], ["tanh", "gelu"])],
)
def bench_step(shape, activation, dtype, benchmark, ceilings, rows):
    """Forward, loss, backward, Adam; softmax cross-entropy of class numbers, half_sse where there is one output."""
    (widths, batch), rng = SHAPES[shape], np.random.default_rng(0)
    labels = widths[-1] > 1
    net = gpubp.Network(list(widths), activation, dtype=dtype, device="cpu", seed=0)
    trainer = gpubp.Trainer(net, "softmax_cross_entropy" if labels else "half_sse", ADAM)
    x = rng.random((batch, widths[0])).astype(dtype)
    y = rng.integers(0, widths[-1], batch) if labels else rng.random((batch, 1)).astype(dtype)
    with net.backend.ordered():
        step = Step(trainer, batch, labels=labels)
        step.fill(x, y, np.ones(batch, dtype))
        trainer.set_lr(ADAM.lr)
        _validate(step, activation, x, y, BOUNDS[dtype])
        trainer.set_lr(0.0)  # thousands of steps on one batch would end in subnormal gradients
        assert step.recording is not None
        report(
            *(benchmark, ceilings, rows, step.recording),
            name=f"step {activation}",
            shape=shape,
            dtype=dtype,
        )
