"""Checks of every update rule and of the penalties, and that a gradient which is not finite changes nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from gpubp.kernels.loss_scale import NO_SCALING, START
from gpubp.kernels.losses import LOSS, PENALTY_SUM, STATS, WEIGHT
from gpubp.kernels.optimizers import RULES, Rule
from gpubp.kernels.replay import STOPPED

from .checking import Check, Host, Subject, Timed, from_storage, to_storage, worst

_SHAPES = ((0,), (1,), (7,), (1024,), (20_001,), (200_003,))
_DRAWN = 200_003  # values that a reference is computed for; in a longer buffer they come again
_STEPS = 2
_SCALE = 4.0  # of float16's gradients, here
# learning rate, gradient factor, weight decay, then the rule's own numbers
_HYPER = {
    "plain_sgd": (0.1, 1.0, 0.01, 0.0, 0.0, 0.0),
    "sgd": (0.1, 1.0, 0.01, 0.9, 1.0, 0.0),
    "adam": (0.01, 0.5, 0.01, 0.9, 0.999, 1e-8, 0.0),
    "adamw": (0.01, 1.0, 0.01, 0.9, 0.999, 1e-8, 1.0),
    "rmsprop": (0.01, 1.0, 0.01, 0.99, 1e-8),
    "adagrad": (0.01, 1.0, 0.01, 0.1, 1e-10),
    "lion": (0.01, 1.0, 0.1, 0.9, 0.99),
}


def checks(subject: Subject) -> Iterator[Check | None]:
    """Every rule, what stops an update, the penalties."""
    for name, rule in RULES.items():
        yield _update(subject, name, rule)
    yield _stopped(subject)
    yield _penalty(subject)
    yield _average(subject)


def _update(subject: Subject, name: str, rule: Rule) -> Check | None:
    """Parameters, slots and the stored copy after two steps, relative to the parameter and all that moved it."""
    ops, hyper = subject.ops, _HYPER[name]
    short = subject.storage != subject.dtype

    def error(shape: tuple[int, ...], rng: np.random.Generator) -> float:
        draw = (min(shape[0], _DRAWN),)
        p, _ = subject.real(np.resize(rng.standard_normal(draw), shape))
        exact_p = subject.exact(p)[: draw[0]]
        slots = tuple(ops.zeros(shape, subject.dtype) for _ in range(rule.slots))
        exact = [np.zeros(draw) for _ in slots]
        stored = ops.zeros(shape, subject.storage) if short else None
        state, size = subject.state(hyper), np.abs(exact_p)
        scale = _SCALE if subject.storage == np.float16 else 1.0
        ops.write(state.scaling, (scale, *NO_SCALING[1:]))
        for step in range(_STEPS):
            values = scale * (0.5 + rng.random(draw)) * rng.choice([-1.0, 1.0], draw)
            g, exact_g = subject.real(np.resize(values, shape))[0], subject.real(values)[1]
            ops.update(rule, p, g, slots, state, stored)
            ops.advance(1, ops.zeros((0,), np.float64), 0, state)
            exact_p, exact = _apply(rule, hyper, exact_p, exact_g / scale, exact, step + 1)
            size = np.maximum(size, np.abs(exact_p)) + hyper[0] * (1 + np.abs(exact_p))
        found = worst(subject.exact(p), np.resize(exact_p, shape), np.resize(size, shape))
        for slot, want in zip(slots, exact, strict=True):
            found = max(
                found, worst(subject.exact(slot), *(np.resize(v, shape) for v in (want, 1 + np.abs(want))))
            )
        if stored is not None:  # the copy is the parameter, rounded: no error beside that at all
            copied = from_storage(to_storage(subject.exact(p), subject.storage))
            found = max(found, math.inf if worst(subject.exact(stored), copied, 0.0) else 0.0)
        return found

    def timed(shape: tuple[int, ...]) -> Timed:
        p, g = (subject.operand(shape, subject.dtype) for _ in range(2))
        slots = tuple(ops.zeros(shape, subject.dtype) for _ in range(rule.slots))
        stored = ops.zeros(shape, subject.storage) if short else None
        state = subject.state(hyper)
        return Timed(lambda: ops.update(rule, p, g, slots, state, stored))

    return subject.check(f"update {name}", _SHAPES, error, 64 * subject.real_unit, timed, _flat(subject))


def _apply(
    rule: Rule, hyper: tuple[float, ...], p: Host, g: Host, slots: list[Host], t: int
) -> tuple[Host, list[Host]]:
    """One step of the rule in Python's floats."""
    c = rule.coefficients(float, hyper, t)
    s0, s1 = (*slots, *[np.zeros_like(p)] * 2)[:2]
    stepped = np.vectorize(lambda p, g, a, b: rule.step(p, hyper[1] * g, a, b, c), otypes=[float] * 3)
    if p.size == 0:
        return p, slots
    new, *new_slots = stepped(p, g, s0, s1)
    return new, new_slots[: rule.slots]


def _stopped(subject: Subject) -> Check | None:
    """A NaN or infinity among the gradients: parameters and slots keep every bit, and a counter says so."""
    ops, rule, hyper = subject.ops, RULES["adam"], _HYPER["adam"]

    def error(shape: tuple[int, ...], rng: np.random.Generator) -> float:
        wrong = 0
        for bad in (np.nan, np.inf):
            p, before = subject.real(rng.standard_normal(shape))
            values = rng.standard_normal(shape)
            values[rng.integers(shape[0])] = bad
            slots = tuple(subject.real(np.zeros(shape))[0] for _ in range(rule.slots))
            state = subject.state(hyper)
            dynamic = subject.storage == np.float16
            if dynamic:
                ops.write(state.scaling, START)
            ops.update(rule, p, subject.real(values)[0], slots, state)
            wrong += int((subject.exact(p) != before).any())
            wrong += sum(int(subject.exact(slot).any()) for slot in slots)
            # with a loss scale the step is skipped and the run goes on
            wrong += int((ops.to_host(state.counters)[STOPPED] == 0) != dynamic)
        return float(wrong)

    return subject.check("update stops at NaN", _SHAPES[1:], error, 0.0)


def _penalty(subject: Subject) -> Check | None:
    """E += l1 sum |W| + l2/2 sum W^2 and dW += l1 sign(W) + l2 W."""
    ops, l1, l2 = subject.ops, 0.25, 0.5

    def error(shape: tuple[int, ...], rng: np.random.Generator) -> float:
        weights, w = subject.real(rng.standard_normal(shape))
        gradients, g = subject.real(rng.standard_normal(shape))
        state = subject.state()
        stats = np.zeros(STATS)
        stats[LOSS], stats[WEIGHT] = 1.5, 3.0
        ops.write(state.stats, stats)
        strengths = ops.to_device(np.array([3 * l1, 3 * l2, 1.0]))  # divided by the weight
        ops.penalty(weights, gradients, strengths, state)
        value = float((l1 * np.abs(w) + l2 / 2 * w * w).sum())
        found = ops.to_host(state.stats)
        return max(
            worst(found[LOSS], 1.5 + value, 1.5 + value),
            worst(found[PENALTY_SUM], 3 * value, 3 * value),
            worst(subject.exact(gradients), g + l1 * np.sign(w) + l2 * w, 1 + np.abs(g) + np.abs(w)),
        )

    def timed(shape: tuple[int, ...]) -> Timed:
        weights, gradients = (subject.operand(shape, subject.dtype) for _ in range(2))
        strengths, state = ops.to_device(np.array([l1, l2, 0.0])), subject.state()
        return Timed(lambda: ops.penalty(weights, gradients, strengths, state))

    return subject.check("l1 + l2 penalty", _SHAPES, error, 32 * subject.real_unit, timed, _flat(subject))


def _average(subject: Subject) -> Check | None:
    """The moving average of two updates: e = d e + (1 - d) p from 0, divided by 1 - d^t."""
    ops, decay = subject.ops, 0.75
    given = ops.to_device(np.array([decay]))

    def error(shape: tuple[int, ...], rng: np.random.Generator) -> float:
        average, state = ops.zeros(shape, subject.dtype), subject.state()
        total, size = np.zeros(shape), np.zeros(shape)
        for _ in range(_STEPS):
            p, exact = subject.real(rng.standard_normal(shape))
            ops.average(p, average, given, state)
            ops.advance(1, ops.zeros((0,), np.float64), 0, state)
            total = decay * total + (1 - decay) * exact
            size = np.maximum(size, np.abs(exact))
        return worst(subject.exact(average), total / (1 - decay**_STEPS), size)

    def timed(shape: tuple[int, ...]) -> Timed:
        p, average = (subject.operand(shape, subject.dtype) for _ in range(2))
        state = subject.state()
        return Timed(lambda: ops.average(p, average, given, state))

    return subject.check(
        "average of the weights", _SHAPES, error, 32 * subject.real_unit, timed, _flat(subject)
    )


def _flat(subject: Subject) -> tuple[int]:
    return (subject.large * subject.large,)
