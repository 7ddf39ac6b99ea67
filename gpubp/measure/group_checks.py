"""Checks of updates that are not one rule over all parameters: ranges of two groups, and Muon's matrices."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from gpubp.kernels.muon import A, B, C
from gpubp.kernels.optimizers import RULES
from gpubp.optimizers import Muon
from gpubp.optimizers.muon import Matrix, Room

from .checking import Check, Host, Subject, Timed, from_storage, to_storage, worst

_FLAT = ((32,), (1056,), (20_016,), (200_016,))  # both halves begin at a multiple of 16, as parameters do
_SHAPES = ((1, 1), (7, 12), (12, 8), (64, 40), (257, 130))
_HYPER = (0.01, 0.5, 0.1, 0.9, 0.999, 1e-8, 0.0)  # of AdamW
_GROUPS = ((1.0, 0.1), (0.5, 0.0))  # factor of the learning rate, weight decay


def checks(subject: Subject) -> Iterator[Check | None]:
    """AdamW by halves; a step of Muon."""
    yield _ranges(subject)
    yield _muon(subject)


def _ranges(subject: Subject) -> Check | None:
    """Each half against AdamW's first step, p (1 - lr decay) - lr sign(g), by its own numbers."""
    ops, rule = subject.ops, RULES["adamw"]

    def error(shape: tuple[int, ...], rng: np.random.Generator) -> float:
        p, exact = subject.real(rng.standard_normal(shape))
        g, exact_g = subject.real((0.5 + rng.random(shape)) * rng.choice([-1.0, 1.0], shape))
        slots = tuple(ops.zeros(shape, subject.dtype) for _ in range(2))
        state, half = subject.state(_HYPER), shape[0] // 2
        c = ops.prepare_groups(rule, g, ops.to_device(np.array(_GROUPS)), state)
        want = np.empty(shape)
        for k, of in enumerate((slice(0, half), slice(half, None))):
            ops.update_range(rule, p[of], g[of], tuple(slot[of] for slot in slots), c[k], state)
            factor, decay = _GROUPS[k]
            lr = factor * _HYPER[0]
            want[of] = exact[of] * (1 - lr * decay) - lr * np.sign(exact_g[of])
        return worst(subject.exact(p), want, 1 + np.abs(exact))

    # eps beside |g|, at least a quarter, is 4e-8 of the step
    return subject.check("update by groups", _FLAT, error, 64 * subject.real_unit + 1e-9)


def _muon(subject: Subject) -> Check | None:
    """One step, relative to the length of an entry's step; rounding of the products grows in the iterations."""
    ops, method = subject.ops, Muon(0.02, weight_decay=0.1)
    short = subject.storage != subject.dtype

    def error(shape: tuple[int, ...], rng: np.random.Generator) -> float:
        m, n = shape
        W, exact = subject.real(rng.standard_normal(shape))
        g, exact_g = subject.real(rng.standard_normal(shape))
        stored = ops.zeros(shape, subject.storage) if short else None
        _step(subject, method, W, g, stored)
        lr, scale = method.lr, method.scale(m, n)
        want = exact * (1 - lr * method.weight_decay) - lr * scale * _orthogonal(exact_g, method.steps)
        size = 0.2 * lr + np.abs(exact) * subject.real_unit / subject.unit
        found = worst(subject.exact(W), want, size)
        if stored is not None:  # the copy is the parameter, rounded: no error beside that at all
            copied = from_storage(to_storage(subject.exact(W), subject.storage))
            found = max(found, math.inf if worst(subject.exact(stored), copied, 0.0) else 0.0)
        return found

    def timed(shape: tuple[int, ...]) -> Timed:
        W, g = (subject.operand(shape, subject.dtype) for _ in range(2))
        return Timed(lambda: _step(subject, method, W, g, None))

    square = subject.large // 2, subject.large // 2
    return subject.check("muon", _SHAPES, error, 400 * subject.unit, timed, square)


def _step(subject: Subject, method: Muon, W: Host, g: Host, stored: Host | None) -> None:
    ops, state = subject.ops, subject.state(method.hyper())
    groups = ops.to_device(np.array([(1.0, method.weight_decay)]))
    c = ops.prepare_groups(method.rule, g.reshape(-1), groups, state)
    scale, momentum = ops.to_device(np.array([method.scale(*W.shape)])), ops.zeros(W.shape, subject.dtype)
    room = Room(ops, [W.shape], subject.storage)
    Matrix(W, g, momentum, stored, scale).step(ops, room, method.steps, c[0], state)


def _orthogonal(g: Host, steps: int) -> Host:
    """The iteration in float64; the first direction is that of the gradient."""
    x: Host = g / np.linalg.norm(g)
    for _ in range(steps):
        gram = x @ x.T
        x = A * x + (B * gram + C * gram @ gram) @ x
    return x
