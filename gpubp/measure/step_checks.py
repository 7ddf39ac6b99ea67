"""Checks of whole training steps: a replayed step is the eager one, and gradients are those of float64."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gpubp.kernels.loss_scale import SCALE, START
from gpubp.kernels.replay import SKIPPED, STOPPED
from gpubp.network import Network
from gpubp.optimizers import Adam

from .checking import Check, Subject, worst
from .training_run import Run, train

_NETWORKS = ((20, 33, 17, 5), (64, 64, 64, 10))
_BATCH = 24
# of gradients, relative to their largest, over three layers
_GRADIENTS = {"float64": 1e-11, "float32": 1e-5, "tf32": 2e-2, "bfloat16": 1e-1, "float16": 2e-2}


def checks(subject: Subject) -> Iterator[Check | None]:
    """Replay against eager, gradients against float64 on the CPU, and the loss scale of float16."""
    for activation in ("relu", "tanh", "gelu_tanh"):
        yield _replay(subject, activation)
        yield _gradients(subject, activation)
    if subject.storage == np.float16:
        yield _overflow(subject)


def _replay(subject: Subject, activation: str) -> Check | None:
    """Parameters after some steps: captured and replayed, and each made eagerly. Not one bit may differ."""

    def error(widths: tuple[int, ...], rng: np.random.Generator) -> float:
        run = Run(widths, activation)
        return worst(train(subject, run, replay=True)[0], train(subject, run, replay=False)[0], 0.0)

    return subject.check(f"replay of steps, {activation}", _NETWORKS, error, 0.0, size=sum)


def _gradients(subject: Subject, activation: str) -> Check | None:
    """All gradients of a network, relative to the largest, against the CPU in float64 from the same parameters."""

    def error(widths: tuple[int, ...], rng: np.random.Generator) -> float:
        net = Run(widths, activation).network(subject)
        same = Network(list(widths), activation, device="cpu", dtype="float64", seed=0)
        parameters = {name: net.backend.to_host(view) for name, view in net.parameters().items()}
        same.load_parameters(parameters)
        x = rng.integers(-32, 33, (_BATCH, widths[0])) / 16  # exact in every precision
        y = rng.integers(0, widths[-1], _BATCH)
        got, want = (n.gradients(x, y, "softmax_cross_entropy")[1] for n in (net, same))
        found = 0.0
        for name, reference in want.items():
            found = max(found, worst(net.backend.to_host(got[name]), reference, np.abs(reference).max()))
        return found

    return subject.check(
        f"gradients, {activation}", _NETWORKS, error, _GRADIENTS[subject.precision], size=sum
    )


def _overflow(subject: Subject) -> Check | None:
    """A gradient that overflows under a loss scale: the step is skipped and counted, the scale halved."""
    ops, optimizer = subject.ops, Adam()

    def error(shape: tuple[int, ...], rng: np.random.Generator) -> float:
        p, before = subject.real(rng.standard_normal(shape))
        slots = tuple(subject.real(np.zeros(shape))[0] for _ in range(2))
        state = subject.state(optimizer.hyper())
        ops.write(state.scaling, START)
        ops.update(optimizer.rule, p, subject.real(np.full(shape, np.inf))[0], slots, state)
        ops.advance(1, ops.zeros((0,), np.float64), 0, state)
        counters, scaling = ops.to_host(state.counters), ops.to_host(state.scaling)
        expected = (scaling[SCALE] == START[SCALE] / 2, counters[SKIPPED] == 1, counters[STOPPED] == 0)
        return float(sum(not fact for fact in expected)) + float((subject.exact(p) != before).any())

    return subject.check("overflow skips a step", ((7,), (1025,)), error, 0.0)
