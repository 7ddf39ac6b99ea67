"""Checks of what a training step is asked for beside the usual: dropout, clipping, micro-batches, limits, smoothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gpubp.backend.base import Drop
from gpubp.kernels.activations import ACTIVATIONS
from gpubp.kernels.dropout import OF_COUNTER, fourth_word, key_of, scale_of, third_word
from gpubp.kernels.loss_scale import NO_SCALING
from gpubp.kernels.losses import LOSS, LOSS_SUM, STATS, WEIGHT
from gpubp.kernels.optimizers import GRADIENT_FACTOR
from gpubp.kernels.philox import low, philox
from gpubp.kernels.replay import GRADIENT_NOT_FINITE, STOPPED

from .checking import Check, Host, Subject, Timed, from_storage, grid, on_each, to_storage, worst

_SHAPES = ((1, 1), (3, 257), (128, 512), (1031, 515))
_FLAT = ((0,), (1,), (1023,), (20_001,), (200_003,))
_SCALE = 16.0  # of float16's gradients, here: a power of two, so that it rounds nothing


def checks(subject: Subject) -> Iterator[Check | None]:
    """Dropout alone and behind an activation; clipping by both; micro-batches; max-norm; smoothed targets."""
    yield _dropout(subject)
    yield _bias_activation_dropout(subject)
    yield _clip(subject)
    yield _accumulate(subject)
    yield _max_norm(subject)
    yield _smooth(subject)


def masks(shape: tuple[int, ...], drop: Drop, step: int) -> Host:
    """m / (1 - rate) of a matrix, in whole arrays, which no kernel has to do with."""
    rows, columns = shape
    seed, layer, threshold, top = drop.numbers
    i, group = np.ogrid[:rows, : -(-columns // OF_COUNTER)]
    counter = group.astype(np.uint64), (top + i).astype(np.uint64), third_word(step), fourth_word(step, layer)
    words = np.broadcast_arrays(*philox(*counter, *key_of(seed)))
    bits = np.stack([low(words[k // 2]) >> np.uint64(16 * (k % 2)) for k in range(OF_COUNTER)], axis=-1)
    kept = (bits & np.uint64(0xFFFF)).reshape(rows, -1)[:, :columns] >= threshold
    return np.where(kept, scale_of(threshold), 0.0)


def _dropout(subject: Subject) -> Check | None:
    """x m / (1 - rate), relative to itself: a number that is dropped elsewhere is an error of 1."""
    ops = subject.ops

    def error(shape: tuple[int, ...], rng: np.random.Generator) -> float:
        (x, exact), state = subject.stored(1 + grid(rng, shape, 1 / 16, 0.5)), subject.state()
        ops.advance(1, ops.zeros((0,), np.float64), 0, state)
        drop, out = Drop(0.3, 2**40 + 5, 2, state.counters), ops.empty(shape, subject.storage)
        ops.dropout(x, out, drop)
        want = exact * masks(shape, drop, 1)
        return worst(subject.exact(out), want, np.maximum(want, exact))

    def timed(shape: tuple[int, ...]) -> Timed:
        x, out = (subject.operand(shape, subject.storage) for _ in range(2))
        drop = Drop(0.3, 1, 0, subject.state().counters)
        return Timed(lambda: ops.dropout(x, out, drop))

    bound = 4 * subject.real_unit + subject.rounding
    return subject.check("dropout", _SHAPES, error, bound, timed, (subject.large, subject.large))


def _bias_activation_dropout(subject: Subject) -> Check | None:
    """a = f(z + b) m / (1 - rate) and its derivative, for tanh."""
    ops, g = subject.ops, ACTIVATIONS["tanh"]

    def error(shape: tuple[int, ...], rng: np.random.Generator) -> float:
        z, b, state = grid(rng, shape, 1 / 16), grid(rng, shape[1:], 1 / 16), subject.state()
        drop = Drop(0.5, 9, 1, state.counters, 11)
        a, derivative = ops.bias_activation_dropout(subject.stored(z)[0], subject.stored(b)[0], g, drop)
        m = masks(shape, drop, 0)
        return max(
            worst(subject.exact(found), want * m, np.maximum(2 * np.abs(want), subject.least))
            for found, want in ((a, on_each(g.f, z + b)), (derivative, on_each(g.d_f, z + b)))
        )

    def timed(shape: tuple[int, ...]) -> Timed:
        z, b = (subject.operand(s, subject.storage) for s in (shape, shape[1:]))
        drop = Drop(0.5, 9, 1, subject.state().counters)
        return Timed(lambda: ops.bias_activation_dropout(z, b, g, drop), (z,))

    bound = subject.function + subject.rounding + 4 * subject.real_unit
    square = subject.large, subject.large
    return subject.check("bias + tanh + dropout", _SHAPES, error, bound, timed, square)


def _clip(subject: Subject) -> Check | None:
    """Entries clipped, exactly; then the factor that makes the norm at most the limit."""
    ops, value, norm = subject.ops, 1.0, 2.0

    def error(shape: tuple[int, ...], rng: np.random.Generator) -> float:
        scale = _SCALE if subject.storage == np.float16 else 1.0
        g, exact = subject.real(scale * rng.standard_normal(shape))
        state = subject.state((0.1, 1.0))
        ops.write(state.scaling, (scale, *NO_SCALING[1:]))
        ops.clip(g, ops.to_device(np.array([value, norm])), state, by_value=True, by_norm=True)
        want = np.clip(exact, -scale * value, scale * value)
        factor = min(1.0, norm / (float(np.linalg.norm(want)) / scale + 1e-6))
        found = float(ops.to_host(state.hyper)[GRADIENT_FACTOR])
        return max(worst(subject.exact(g), want, 0.0), worst(found, factor, factor))

    def timed(shape: tuple[int, ...]) -> Timed:
        g, limits = subject.operand(shape, subject.dtype), ops.to_device(np.array([value, norm]))
        state = subject.state((0.1, 1.0))
        return Timed(lambda: ops.clip(g, limits, state, by_value=True, by_norm=True))

    return subject.check("clip value + norm", _FLAT, error, 1e-12, timed, (subject.large * subject.large,))


def _accumulate(subject: Subject) -> Check | None:
    """Gradients and losses of four micro-batches, one of which weighs nothing: their weighted means."""
    ops, weights = subject.ops, (3.0, 0.0, 0.5, 2.0)

    def error(shape: tuple[int, ...], rng: np.random.Generator) -> float:
        state, mean = subject.state(), ops.empty(shape, subject.dtype)
        part, losses = state.apart(), rng.standard_normal(len(weights))
        total, size = np.zeros(shape), np.zeros(shape)
        for k, (weight, loss) in enumerate(zip(weights, losses, strict=True), 1):
            g, exact = subject.real(rng.standard_normal(shape))
            stats = np.zeros(STATS)
            stats[LOSS], stats[WEIGHT] = loss, weight
            ops.write(part.stats, stats)
            ops.accumulate(g, mean, part, state, first=k == 1, last=k == len(weights))
            total, size = total + weight * exact, np.maximum(size, np.abs(exact))
        found, want = ops.to_host(state.stats), float(np.dot(weights, losses))
        return max(
            worst(subject.exact(g), total / sum(weights), size),
            worst(found[[LOSS, WEIGHT, LOSS_SUM]], (want / sum(weights), sum(weights), want), 1.0),
        )

    def timed(shape: tuple[int, ...]) -> Timed:
        g, mean = (subject.operand(shape, subject.dtype) for _ in range(2))
        state = subject.state()
        part = state.apart()
        return Timed(lambda: ops.accumulate(g, mean, part, state, first=False, last=False))

    bound, square = 32 * subject.real_unit, (subject.large * subject.large,)
    return subject.check("mean over micro-batches", _FLAT, error, bound, timed, square)


def _max_norm(subject: Subject) -> Check | None:
    """W[:, j] min(1, c / |W[:, j]|), relative to W; shorter columns keep every bit, and after a stop all do.

    Not timed: a second launch has nothing to shorten.
    """
    ops = subject.ops

    def error(shape: tuple[int, ...], rng: np.random.Generator) -> float:
        W, exact = subject.real(rng.standard_normal(shape) * rng.uniform(0.5, 2, shape[1]))
        stored = None if subject.storage == subject.dtype else subject.stored(exact)[0]
        norms, state = np.linalg.norm(exact, axis=0), subject.state()
        c = 0.9 * float(np.median(norms))
        limit, found = ops.to_device(np.array([c])), 0.0
        for stopped, factors in ((GRADIENT_NOT_FINITE, np.ones(1)), (0, np.minimum(1, c / norms))):
            ops.write(state.counters[STOPPED : STOPPED + 1], [stopped])
            ops.max_norm(W, limit, state, stored)
            size = np.where(factors < 1, np.abs(exact), 0.0)
            found = max(found, worst(subject.exact(W), exact * factors, size))
            if stored is not None:  # the copy is the parameter, rounded: no error beside that at all
                copied = from_storage(to_storage(subject.exact(W), subject.storage))
                found = max(found, 0.0 if worst(subject.exact(stored), copied, 0.0) == 0 else np.inf)
        return found

    return subject.check("max-norm", _SHAPES, error, 64 * subject.real_unit)


def _smooth(subject: Subject) -> Check | None:
    """on y + off for rows y, and for class numbers, which are rows of 0 and 1."""
    ops, on, off = subject.ops, 0.9, 0.01
    rates = ops.to_device(np.array([on, off]))

    def error(shape: tuple[int, ...], rng: np.random.Generator) -> float:
        (y, exact), classes = subject.real(rng.standard_normal(shape)), rng.integers(0, shape[1], shape[0])
        found, out = 0.0, ops.empty(shape, subject.dtype)
        for given, want in ((y, exact), (ops.to_device(classes), np.eye(shape[1])[classes])):
            ops.smooth(given, out, rates)
            found = max(found, worst(subject.exact(out), on * want + off, 1 + np.abs(want)))
        return found

    def timed(shape: tuple[int, ...]) -> Timed:
        y, out = (subject.operand(shape, subject.dtype) for _ in range(2))
        return Timed(lambda: ops.smooth(y, out, rates))

    square = subject.large, subject.large
    return subject.check("smoothed targets", _SHAPES, error, 4 * subject.real_unit, timed, square)
